"""Layers and operations that act element by element: activations, merging, normalization by constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tfmcu_prune.graph import Call, Ref
from tfmcu_prune.program import Builder
from tfmcu_prune.rules import Array, Flow, first_row

_ONE_OPERATOR = {
    "relu": "RELU",
    "relu6": "RELU6",
    "leaky_relu": "LEAKY_RELU",
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "softmax": "SOFTMAX",
    "hard_silu": "HARD_SWISH",
    "hard_swish": "HARD_SWISH",
    "gelu": "GELU",
    "exponential": "EXP",
    "elu": "ELU",
}
_MOVED_BEFORE_RESHAPE = {"relu", "relu6", "sigmoid", "tanh"}  # the converter puts them before the RESHAPE of a 1-D map


def activate(program: Builder, call: Call, index: int, name: str | None = None) -> int:
    """Put an activation function (by default the layer's own) behind activation `index`."""
    if name is None:
        name = getattr(getattr(call.layer, "activation", None), "__name__", "linear")
    if name in ("", "linear"):
        return index
    if name not in _MOVED_BEFORE_RESHAPE:
        rank = len(call.shapes[0]) - 1
        index = program.like(call, index, rank) if program.activations[index].ndim > rank else index
    labels = program.activations[index]
    if name in ("silu", "swish"):
        gate = program.emit("LOGISTIC", call, [index], labels)
        return program.emit("MUL", call, [index, gate], labels)
    if name == "hard_sigmoid":
        index = constant(program, call, index, "ADD", None, 3)
        index = program.emit("RELU6", call, [index], labels)
        return constant(program, call, index, "MUL", None, 1 / 6)
    kind = _ONE_OPERATOR.get(name)
    if kind is None:
        program.estimated[call.name] = None
        return program.emit(name.upper(), call, [index], labels)
    return program.emit(kind, call, [index], labels)


def activation(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return activate(program, call, inputs[0])


def named(name: str) -> Callable[..., int]:
    """An activation function that a layer or an operation is by its name."""

    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        return activate(program, call, inputs[0], name)

    return lowering


def relu(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    config = call.layer.get_config()
    if config.get("negative_slope"):
        return activate(program, call, inputs[0], "leaky_relu")
    return activate(program, call, inputs[0], "relu6" if config.get("max_value") == 6 else "relu")


def clip(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    config = call.layer.get_config()
    limits = (config["x_min"], config["x_max"])
    labels = program.activations[inputs[0]]
    kind = {(0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1"}.get(limits)
    if kind is not None:
        return program.emit(kind, call, inputs, labels)
    index = program.emit("MINIMUM", call, inputs, labels, kernel=(None, None, 1))
    return program.emit("MAXIMUM", call, [index], labels, kernel=(None, None, 1))


def softmax(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """Over the last axis; another axis is brought there and back."""
    labels, axis = program.activations[inputs[0]], call.layer.get_config().get("axis", -1)
    if not isinstance(axis, int):
        program.estimated[call.name] = None
    if axis in (-1, labels.ndim) or not isinstance(axis, int):
        return program.emit("SOFTMAX", call, inputs, labels)
    there = np.moveaxis(labels, axis - 1 if axis > 0 else axis, -1)
    index = transposed(program, call, inputs[0], there)
    return transposed(program, call, program.emit("SOFTMAX", call, [index], there), labels)


def transposed(program: Builder, call: Call, index: int, labels: Array) -> int:
    """In another order of axes; where only axes of size one move, it is a RESHAPE."""
    long = [size for size in program.activations[index].shape if size > 1]
    if long == [size for size in labels.shape if size > 1] and len(set(long)) == len(long):
        return program.reshape(call, index, labels)
    return program.emit("TRANSPOSE", call, [index], labels, constants=(4 * labels.ndim + 4,))


def unary(kind: str) -> Callable[..., int]:
    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        return program.emit(kind, call, inputs[:1], program.activations[inputs[0]])

    return lowering


def negative(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return constant(program, call, inputs[0], "MUL", None, -1)


def square(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return program.emit("MUL", call, [inputs[0], inputs[0]], program.activations[inputs[0]])


def binary(kind: str) -> Callable[..., int]:
    """Operands one after the other; a constant one is held by the operator."""

    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        labels = flow.outputs[0]
        constants = [arg for arg in call.args if not isinstance(arg, (Ref, list, tuple))]
        if constants:
            rank = np.ndim(constants[0])
            row = None if rank == 0 else _row(labels) if rank == 1 else labels
            name = "MUL" if kind == "DIV" and isinstance(call.args[0], Ref) else kind
            reverse, value = not isinstance(call.args[0], Ref), constants[0]
            number = "" if row is not None else str(np.float32(1 / value if name != kind else value))
            return program.emit(
                name,
                call,
                inputs,
                program.activations[inputs[0]],
                kernel=(None, row, 1),
                weight=number,
                reverse=reverse,
            )
        held = all(program.activations[index].ndim > labels.ndim for index in inputs)  # 1-D maps as 2-D ones
        left = inputs[0] if held else _operand(program, call, inputs[0], labels.ndim)
        for other in inputs[1:]:
            right = other if held else _operand(program, call, other, labels.ndim)
            wide = labels[None] if held else labels
            left = program.emit(kind, call, [left, right], _broadcast(program, wide, left, right))
        return left

    return lowering


def _operand(program: Builder, call: Call, index: int, rank: int) -> int:
    """A (1, time, channels) map as Keras sees it; a vector that is broadcast stays as it is."""
    labels = program.activations[index]
    return program.like(call, index, rank) if labels.ndim > rank else index


def _broadcast(program: Builder, labels: Array, left: int, right: int) -> Array:
    shape = np.broadcast_shapes(program.activations[left].shape, program.activations[right].shape)
    if shape == labels.shape:
        return labels
    wide = next((a for a in (left, right) if program.activations[a].shape == shape), left)
    return np.broadcast_to(program.activations[wide], shape)


def scaled_down(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """The last part of an average."""
    return constant(program, call, inputs[0], "MUL", None)


def vector(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return program.vector(call, inputs[0])


def constant(program: Builder, call: Call, index: int, kind: str, row: Array | None, value: float | None = None) -> int:
    """Multiply by, or add, a constant: a number (`row` None, `value` where it is known) or one a channel."""
    weight = "" if value is None else str(np.float32(value))
    return program.emit(kind, call, [index], program.activations[index], kernel=(None, row, 1), weight=weight)


def _row(labels: Array) -> Array:
    return first_row(labels) if labels.ndim > 1 else labels


def rescaling(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, row = call.layer, _row(program.activations[inputs[0]])
    index = constant(program, call, inputs[0], "MUL", row if np.ndim(layer.scale) else None)
    if not np.any(layer.offset):
        return index
    return constant(program, call, index, "ADD", row if np.ndim(layer.offset) else None)


def normalization(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, index = call.layer, inputs[0]
    row = _row(program.activations[index])[None]  # (1, 1, 1, channels) in the file: no kernel takes it in
    if np.any(np.asarray(layer.mean)):
        index = constant(program, call, index, "SUB", row)
    return constant(program, call, index, "MUL", row) if np.any(np.asarray(layer.variance) != 1) else index


def batch_norm(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    row = _row(program.activations[inputs[0]])
    return constant(program, call, constant(program, call, inputs[0], "MUL", row), "ADD", row)


def layer_scale(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return constant(program, call, inputs[0], "MUL", _row(program.activations[inputs[0]]))


def prelu(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels, shared = program.activations[inputs[0]], call.layer.shared_axes or ()
    places = int(np.prod([size for axis, size in enumerate(labels.shape[:-1], 1) if axis not in shared]))
    row = None if labels.ndim in shared else _row(labels)
    return program.emit("PRELU", call, inputs, labels, kernel=(None, row, places))


def nothing(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return inputs[0]
