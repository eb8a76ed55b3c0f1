"""Layers and operations that move elements, or reduce over places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call
from tfmcu_prune.lowering.elementwise import transposed
from tfmcu_prune.program import Builder
from tfmcu_prune.rules import Array, Flow


def reshape(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    if call.layer.get_config().get("newshape", (1,))[0] == -1:  # a batch axis that the converter does not look into
        return program.emit("RESHAPE", call, inputs, labels, constants=(4 * labels.ndim + 4,), axes=(-1,))
    return program.reshape(call, inputs[0], labels)


def transpose(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    return transposed(program, call, program.like(call, inputs[0], labels.ndim), labels)


def reverse(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.like(call, inputs[0], flow.outputs[0].ndim)
    return program.emit("REVERSE_V2", call, [index], flow.outputs[0], constants=(4,))


def reduction(kind: str) -> Callable[..., int]:
    """Over axes that the layer or the operation names; global pooling takes all the places."""

    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        index, config = inputs[0], call.layer.get_config()
        if "axis" in config:
            rank = program.activations[index].ndim
            given = range(1, rank + 1) if config["axis"] is None else np.atleast_1d(config["axis"]).tolist()
            axes = tuple(axis % (rank + 1) - 1 for axis in given)
        else:
            axes = (0,) if type(call.layer).__name__.endswith("1D") else (0, 1)
            index = program.like(call, index, len(axes) + 1)
        return program.emit(kind, call, [index], flow.outputs[0], constants=(4 * len(axes),), axes=axes)

    return lowering


def variance(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """The mean of the squared distance from the mean."""
    labels, axis = program.activations[inputs[0]], call.layer.get_config()["axis"]
    axes = range(labels.ndim) if axis is None else [int(i) % (labels.ndim + 1) - 1 for i in np.atleast_1d(axis)]
    kept = labels[tuple(slice(0, 1) if i in axes else slice(None) for i in range(labels.ndim))]
    sizes = (4 * len(axes),)
    mean = program.emit("MEAN", call, inputs, kept, constants=sizes)
    distance = program.emit("SQUARED_DIFFERENCE", call, [inputs[0], mean], labels)
    index = program.emit("MEAN", call, [distance], flow.outputs[0], constants=sizes)
    return program.emit("SQRT", call, [index], flow.outputs[0]) if type(call.layer).__name__ == "Std" else index


def pad(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    index = program.like(call, inputs[0], labels.ndim)
    return program.emit(
        "PAD", call, [index], labels, constants=(8 * labels.ndim + 8,), pads=_pads(call.layer, labels.ndim)
    )


def _pads(layer: Any, rank: int) -> tuple[tuple[int, int], ...]:
    config = layer.get_config()
    if "pad_width" in config:
        return tuple((int(a), int(b)) for a, b in config["pad_width"][1:])
    around = config["padding"]
    places = [around] if isinstance(around[0], int) else list(around)
    return (*((int(a), int(b)) for a, b in places), *[(0, 0)] * (rank - len(places)))


def crop(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    return sliced(program, call, program.like(call, inputs[0], labels.ndim), labels)


def sliced(program: Builder, call: Call, index: int, labels: Array) -> int:
    rank = program.activations[index].ndim
    if program.activations[index].shape == labels.shape:
        return index
    return program.emit("STRIDED_SLICE", call, [index], labels, constants=(4 * rank + 4,) * 3)


def get_item(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return sliced(program, call, inputs[0], flow.outputs[0])


def concatenate(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    return program.emit("CONCATENATION", call, [program.like(call, a, labels.ndim) for a in inputs], labels)


def stack(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return program.emit("PACK", call, inputs, flow.outputs[0])


def split(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> tuple[int, ...]:
    parts = flow.outputs
    rank = parts[0].ndim
    index = program.like(call, inputs[0], rank)
    even = isinstance(call.layer.get_config()["indices_or_sections"], int) and not flow.sizes
    if even:
        return program.emit_several("SPLIT", call, [index], parts, constants=(4,))
    return program.emit_several("SPLIT_V", call, [index], parts, constants=(4 * len(parts), 4))


def resize(kind: str) -> Callable[..., int]:
    """To other places: `kind`, or what the layer's `interpolation` says."""

    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        bilinear = call.layer.get_config().get("interpolation", "nearest") == "bilinear"
        name = kind or ("RESIZE_BILINEAR" if bilinear else "RESIZE_NEAREST_NEIGHBOR")
        labels = flow.outputs[0]
        index = program.four(call, inputs[0])
        return program.emit(name, call, [index], labels[None] if labels.ndim == 2 else labels, constants=(8,))

    return lowering


def repeat_vector(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """The nearest neighbour of one place, as `rewrites` has it."""
    labels = flow.outputs[0]
    index = program.emit("RESHAPE", call, inputs, labels[None, :1], constants=(20,))
    return program.emit("RESIZE_NEAREST_NEIGHBOR", call, [index], labels[None], constants=(8,))
