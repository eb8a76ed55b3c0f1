"""What TFLite operators a Keras graph becomes: the one table of layer -> operators, with the converter's fusions.

The operators carry channel labels, so that their costs follow from a mask in closed form (`resources`). Observed on the
converter of TensorFlow 2.21 with a static batch of 1; the converted file has the last word (`PruneCallback`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfmcu_prune.channels import Channels
from tfmcu_prune.lowering.fusion import fuse, requantize
from tfmcu_prune.lowering.order import steps
from tfmcu_prune.lowering.table import holds_maps, lowering_for
from tfmcu_prune.program import Builder, Operator, Program

__all__ = ["lower"]


def lower(channels: Channels) -> Program:
    """Return the TFLite operators of a labelled model, in the order of the converted file.

    A layer with no row in the table is estimated; `Program.estimated` names these.
    """
    program, graph = Builder(channels), channels.graph
    for step in steps(channels):
        inputs = [program.at[key] for key in step.inputs]
        if not holds_maps(step):
            ranks = [channels.labels[key].ndim for key in step.inputs]
            inputs = [program.like(step.call, a, rank) for a, rank in zip(inputs, ranks, strict=True)]
        results = lowering_for(step)(program, step.call, step.flow, inputs)
        program.at.update(zip(step.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    outputs = [_as_keras_sees_it(program, channels, key) for key in graph.output_ids()]
    fused, left = fuse(program.operators, program.activations, outputs)
    operators = requantize(fused, lambda a: program.tensor(program.activations[a]))
    sources = {program.at[key]: _width(layer.dtype) for key, layer in graph.input_layers.items()}
    return _numbered(program, operators, sources, left)


def _width(dtype: str) -> int:
    """Bytes of an element of an input: floats become int8, integers stay."""
    return int(np.dtype(dtype).itemsize) if dtype.startswith(("int", "uint")) else 1


def _as_keras_sees_it(program: Builder, channels: Channels, key: int) -> int:
    """An output of the model; a 1-D map does not stay a 2-D one."""
    index = program.at[key]
    maker = next((call for call in channels.graph.calls if key in call.outputs), None)
    return index if maker is None else program.like(maker, index, channels.labels[key].ndim)


def _numbered(
    program: Builder, operators: Sequence[Operator], inputs: Mapping[int, int], outputs: Sequence[int]
) -> Program:
    """The program with the activations that are left, numbered in the order in which they are written."""
    kept = list(dict.fromkeys([*inputs, *(a for operator in operators for a in operator.outputs)]))
    place = {a: number for number, a in enumerate(kept)}

    def numbers(indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(place[a] for a in indices)

    return Program(
        tuple(replace(one, inputs=numbers(one.inputs), outputs=numbers(one.outputs)) for one in operators),
        tuple(program.activations[a] for a in kept),
        tuple(inputs.get(a, 1) for a in kept),
        numbers(list(inputs)),
        numbers(outputs),
        tuple(program.estimated),
    )
