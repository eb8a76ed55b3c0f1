"""Rules of `keras.ops` operations and operators (`x + y`, `x[..., :4]`), by the name of the operation's class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call, Ref
from tfmcu_prune.rules.flow import (
    Array,
    Flow,
    Labels,
    Rule,
    Size,
    keep,
    kept_shape,
    merge,
    output_shape,
    rectangular,
    same,
    softmax_over,
    spread,
    varying_axes,
    windowed,
)


def elementwise(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Operands that meet element by element; constants must be scalars, since a mask does not cut them."""
    if any(np.ndim(arg) for arg in call.args if not isinstance(arg, (Ref, list, tuple, str))):
        return keep(call, inputs, labels, f"{call.name} takes a constant array")
    return merge(call, inputs, labels) if len(inputs) > 1 else same(call, inputs, labels)


def softmax(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    softmax_over(_config(call).get("axis", -1), call, inputs[0], labels)
    return same(call, inputs, labels)


def reduction(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """A mean or a sum over places keeps the channels; over channels it mixes them."""
    a, config = inputs[0], _config(call)
    axes = _axes(config.get("axis"), a.ndim)
    if axes is None or set(axes) & set(varying_axes(a)):
        return keep(call, inputs, labels)
    taken = a[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(a.ndim))]
    return Flow(_spread_again(taken.reshape(output_shape(call))))


def reshape(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    output = rectangular(inputs[0].reshape(output_shape(call)), labels)
    return Flow(output, sizes={"newshape": Size(output, lambda kept: (-1, *kept_shape(kept)))})


def transpose(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    axes = _config(call).get("axes")
    if axes is None or axes[0] != 0:
        return keep(call, inputs, labels, f"{call.name} moves the batch axis")
    return Flow(np.transpose(inputs[0], [axis - 1 for axis in axes[1:]]))


def swap(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    config = _config(call)
    pair = _axes((config["axis1"], config["axis2"]), inputs[0].ndim)
    if pair is None:
        return keep(call, inputs, labels, f"{call.name} moves the batch axis")
    return Flow(np.swapaxes(inputs[0], *pair))


def move(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    config, rank = _config(call), inputs[0].ndim
    source, destination = _axes(config["source"], rank), _axes(config["destination"], rank)
    if source is None or destination is None:
        return keep(call, inputs, labels, f"{call.name} moves the batch axis")
    return Flow(np.moveaxis(inputs[0], source, destination))


def moved(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """An axis of size one more or less."""
    return Flow(_spread_again(inputs[0].reshape(output_shape(call))))


def flipped(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    axes = _axes(_config(call).get("axis"), inputs[0].ndim)
    return keep(call, inputs, labels) if axes is None else Flow(np.flip(inputs[0], axes))


def concatenate(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    axes = _axes(_config(call).get("axis", -1), inputs[0].ndim)
    if axes is None:
        return keep(call, inputs, labels, f"{call.name} joins along the batch axis")
    return Flow(rectangular(np.concatenate(inputs, axis=axes[0]), labels))


def stack(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    axes = _axes(_config(call).get("axis", 0), inputs[0].ndim + 1)
    if axes is None:
        return keep(call, inputs, labels, f"{call.name} makes a new batch axis")
    return Flow(rectangular(np.stack(inputs, axis=axes[0]), labels))


def split(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """The parts of a tensor; along the channel axis they are cut where the channels of each now end."""
    a, config = inputs[0], _config(call)
    axes = _axes(config.get("axis", 0), a.ndim)
    if axes is None:
        return keep(call, inputs, labels, f"{call.name} cuts the batch axis")
    outputs = tuple(map(_spread_again, np.split(a, config["indices_or_sections"], axis=axes[0])))
    if axes[0] not in varying_axes(a):
        return Flow(outputs)
    ends = np.cumsum([part.shape[axes[0]] for part in outputs])[:-1].tolist()
    line = np.moveaxis(a, axes[0], -1)[(0,) * (a.ndim - 1)]
    return Flow(
        outputs, sizes={"indices_or_sections": Size(line, lambda kept: [int(kept[:end].sum()) for end in ends])}
    )


def unstack(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """The slices along an axis of places; single channels keep."""
    axes = _axes(_config(call).get("axis", 0), inputs[0].ndim)
    if axes is None or axes[0] in varying_axes(inputs[0]):
        return keep(call, inputs, labels, f"{call.name} picks single channels")
    return Flow(tuple(map(_spread_again, np.moveaxis(inputs[0], axes[0], 0))))


def get_item(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Slices and indices of places; of the channel axis, slices with step 1."""
    a, key = inputs[0], call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    key = _full_key(key, a.ndim + 1)
    if key is None or key[0] != slice(None) or len(call.args) < 2:
        return keep(call, inputs, labels, f"{call.name} indexes with more than slices and numbers")
    output = _spread_again(np.asarray(a[key[1:]]))
    for axis in varying_axes(a):
        at = key[axis + 1]
        if at == slice(None):
            continue
        if not isinstance(at, slice) or at.step not in (None, 1):
            return keep(call, inputs, labels, f"{call.name} picks single channels")
        start, stop, _ = at.indices(a.shape[axis])
        line = np.moveaxis(a, axis, -1)[(0,) * (a.ndim - 1)]
        return Flow(output, args={1: Size(line, _cut_key(key, axis + 1, start, stop))})
    return Flow(output)


def _cut_key(key: tuple[Any, ...], axis: int, start: int, stop: int) -> Any:
    def cut(kept: Array) -> tuple[Any, ...]:
        part = slice(int(kept[:start].sum()), int(kept[:stop].sum()))
        return (*key[:axis], part, *key[axis + 1 :])

    return cut


def _full_key(key: Any, rank: int) -> tuple[Any, ...] | None:
    """A key with an entry for every axis; `None` for keys of other things than slices and numbers."""
    key = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    if not all(isinstance(part, (int, slice)) or part is Ellipsis for part in key) or any(p is True for p in key):
        return None
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    at = key.index(Ellipsis)
    return (*key[:at], *[slice(None)] * (rank - len(key) + 1), *key[at + 1 :])


def padded(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Padding of places keeps the channels; new channels of zeros stay for good, and so does what they meet."""
    a = inputs[0]
    if output_shape(call)[-1] == a.shape[-1]:
        return windowed(call, inputs, labels)
    return keep(call, inputs, labels, f"{call.name} pads the channels")


def _config(call: Call) -> dict[str, Any]:
    config: dict[str, Any] = call.layer.get_config()
    return config


def _axes(axis: Any, rank: int) -> tuple[int, ...] | None:
    """Axes counted without the batch axis, `rank` of them; `None` where the batch axis is among them."""
    if axis is None:
        return None
    axes = tuple(int(i) % (rank + 1) - 1 for i in np.atleast_1d(axis))
    return None if -1 in axes else axes


def _spread_again(a: Array) -> Array:
    """The same labels as one row seen at every place, where they are."""
    if a.ndim > 1 and set(varying_axes(a)) <= {a.ndim - 1}:
        return spread(a[(0,) * (a.ndim - 1)], a.shape)
    return a


_UNARY = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu"),
    *("LogSigmoid", "Softplus", "Softsign", "HardTanh", "HardShrink", "SoftShrink", "TanhShrink", "Threshold"),
    *("Squareplus", "SparsePlus", "SparseSigmoid", "Absolute", "Abs", "Fabs", "Negative", "Sign", "Clip"),
    *("Exp", "Exp2", "Expm1", "Log", "Log10", "Log1p", "Log2", "Sqrt", "Rsqrt", "Square", "Reciprocal", "Round"),
    *("Cbrt", "Floor", "Ceil", "Trunc", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh", "Arctan", "Arcsinh", "Erf"),
    *("Erfc", "Erfinv", "Arcsin", "Arccos", "Arctanh", "Arccosh", "Sinc", "NanToNum", "OnesLike", "ZerosLike"),
    *("Cast", "SaturateCast", "StopGradient", "Copy", "Isfinite", "Isnan", "Isinf", "LogicalNot"),
)
_BINARY = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan", "FloorDivide", "Mod", "Power"),
    *(
        "Maximum",
        "Minimum",
        "Fmax",
        "Fmin",
        "Fmod",
        "Arctan2",
        "Hypot",
        "Logaddexp",
        "Where",
        "Greater",
        "GreaterEqual",
        "Less",
        "LessEqual",
    ),
    *("Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalXor"),
)

OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys([*_UNARY, *_BINARY], elementwise),
    **dict.fromkeys(["Softmax", "LogSoftmax"], softmax),
    **dict.fromkeys(
        ["Mean", "Sum", "Max", "Min", "Amax", "Amin", "Prod", "Var", "Std", "All", "Any", "Logsumexp"], reduction
    ),
    "Reshape": reshape,
    "Transpose": transpose,
    "Swapaxes": swap,
    "Moveaxis": move,
    **dict.fromkeys(["ExpandDims", "Squeeze"], moved),
    "Flip": flipped,
    "Concatenate": concatenate,
    "Stack": stack,
    "Split": split,
    "GetItem": get_item,
    "Pad": padded,
    "Unstack": unstack,
    **dict.fromkeys(["MaxPool", "AveragePool", "Resize", "CropImages", "PadImages"], windowed),
    **dict.fromkeys(
        ["Matmul", "Dot", "Einsum", "Tensordot", "Inner", "Outer", "Conv", "DepthwiseConv", "SeparableConv"]
        + ["ConvTranspose", "Take", "TakeAlongAxis", "Cumsum", "Cumprod", "Argmax", "Argmin", "TopK", "Sort", "Norm"]
        + [
            "Normalize",
            "LayerNorm",
            "RMSNorm",
            "Glu",
            "DepthToSpace",
            "SpaceToDepth",
            "OneHot",
            "Roll",
            "Tile",
            "Repeat",
            "BroadcastTo",
            "DotProductAttention",
        ],
        keep,
    ),
}
