"""What TFLite operators a Keras graph becomes: the one table of layer -> operators, with the converter's fusions.

The operators carry channel labels, so that their costs follow from a mask in closed form (`resources`). Observed on the
converter of TensorFlow 2.21 with a static batch of 1; the converted file has the last word (`PruneCallback`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tfmcu_prune.channels import Channels
from tfmcu_prune.graph import Call
from tfmcu_prune.lowering.fusion import fuse
from tfmcu_prune.lowering.order import converter_order
from tfmcu_prune.lowering.table import lowering_for
from tfmcu_prune.program import Builder, Operator, Program

__all__ = ["lower"]


def lower(channels: Channels) -> Program:
    """Return the TFLite operators of a labelled model, in the order of the converted file.

    A layer with no row in the table is estimated; `Program.estimated` names these.
    """
    program, graph = Builder(channels), channels.graph
    reshaped = {place: summands for place, call in enumerate(graph.calls) if (summands := _summands(channels, call))}
    vectors: dict[tuple[int, int], int] = {}
    for place, number in converter_order(graph, reshaped):
        call, flow = graph.calls[place], channels.flows[place]
        if number >= 0:
            vectors[place, number] = program.vector(call, program.at[call.inputs[number]])
            continue
        inputs = [vectors.get((place, number), program.at[id]) for number, id in enumerate(call.inputs)]
        results = lowering_for(call)(program, call, flow, inputs)
        program.at.update(zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    outputs = [_as_keras_sees_it(program, channels, id) for id in graph.output_ids()]
    operators, left = fuse(program.operators, program.activations, outputs)
    inputs = [program.at[id] for id in graph.input_layers]
    return _numbered(program, operators, inputs, left)


def _summands(channels: Channels, call: Call) -> range:
    """Where there is one place alone, the converter takes each summand but the first for a bias: a vector."""
    shapes = {channels.labels[id].shape for id in call.inputs}
    alone = len(shapes) == 1 and all(size == 1 for shape in shapes for size in shape[:-1])
    return range(1, len(call.inputs) if alone and type(call.layer).__name__ == "Add" else 1)


def _as_keras_sees_it(program: Builder, channels: Channels, id: int) -> int:
    """An output of the model; a 1-D map does not stay a 2-D one."""
    index = program.at[id]
    maker = next((call for call in channels.graph.calls if id in call.outputs), None)
    return index if maker is None else program.like(maker, index, channels.labels[id].ndim)


def _numbered(
    program: Builder, operators: Sequence[Operator], inputs: Sequence[int], outputs: Sequence[int]
) -> Program:
    """The program with the activations that are left, numbered in the order in which they are written."""
    kept = list(dict.fromkeys([*inputs, *(a for operator in operators for a in operator.outputs)]))
    place = {a: number for number, a in enumerate(kept)}

    def numbers(indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(place[a] for a in indices)

    return Program(
        tuple(replace(one, inputs=numbers(one.inputs), outputs=numbers(one.outputs)) for one in operators),
        tuple(program.activations[a] for a in kept),
        numbers(inputs),
        numbers(outputs),
        tuple(program.estimated),
    )
