"""What TFLite operators a Keras graph becomes: the one table of layer -> operators, with the converter's fusions.

The operators carry channel labels, so that their costs follow from a mask in closed form (`resources`). Observed on the
converter of TensorFlow 2.21 with a static batch of 1; the converted file has the last word (`PruneCallback`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfmcu_prune.channels import Channels
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.graph import Call
from tfmcu_prune.program import Builder, Program
from tfmcu_prune.rules import Array, Flow, first_row, is_augmentation, spread, weight_of

_FUSABLE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL"}
_FOLDABLE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_ACTIVATIONS = {
    "relu": ("RELU",),
    "relu6": ("RELU6",),
    "leaky_relu": ("LEAKY_RELU",),
    "sigmoid": ("LOGISTIC",),
    "tanh": ("TANH",),
    "softmax": ("SOFTMAX",),
    "hard_silu": ("HARD_SWISH",),
    "hard_sigmoid": ("ADD", "MUL"),
    "silu": ("LOGISTIC", "MUL"),
    "elu": ("DEQUANTIZE", "ELU", "QUANTIZE"),
}


def lower(channels: Channels) -> Program:
    """Return the TFLite operators of a labelled model.

    A layer with no row in the table is estimated; the converted file tells the truth in the end.
    """
    program = Builder(channels)
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        results = _lowering_for(call.layer)(program, call, flow, [program.at[id] for id in call.inputs])
        program.at.update(zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    inputs = tuple(program.at[id] for id in channels.graph.input_layers)
    outputs = tuple(program.at[id] for id in channels.graph.output_ids())
    return Program(tuple(program.operators), tuple(program.activations), inputs, outputs)


def _lowering_for(layer: Any) -> Callable[..., int | tuple[int, ...]]:
    lowering = _TABLE.get(type(layer))
    if lowering is None and is_augmentation(layer):
        return _nothing
    return lowering or _unknown


def _unknown(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> tuple[int, ...]:
    """A layer whose operators are not known: one for each kernel that it reads with, or one; an estimate."""
    index = inputs[0]
    for name, axis in list(flow.reads.items())[:-1]:
        index = program.emit(_kind(call), call, [index], flow.outputs[0], **_mixed(call, flow, name, axis))
    last = _mixed(call, flow, *list(flow.reads.items())[-1]) if flow.reads else {}
    results = [program.emit(_kind(call), call, [*dict.fromkeys([*inputs, index])], flow.outputs[0], **last)]
    for labels in flow.outputs[1:]:
        results.append(program.emit(_kind(call), call, inputs, labels))
    return tuple(results)


def _kind(call: Call) -> str:
    return type(call.layer).__name__


def _mixed(call: Call, flow: Flow, name: str, axis: int) -> dict[str, Any]:
    """The kernel and the MACs of a weight with which a layer reads its input channels."""
    axes, shape = flow.weights[name], weight_of(call.layer, name).shape
    other = [i for i, labels in enumerate(axes) if i != axis and labels is not None]
    columns = axes[other[0]] if other else None
    elements = int(np.prod([size for i, size in enumerate(shape) if i != axis and i not in other[:1]]))
    return {"kernel": (axes[axis], columns, elements), "macs": (axes[axis], elements)}


def _activate(program: Builder, call: Call, index: int, name: str, alone: bool) -> int:
    """Put an activation function behind activation `index`, fused into its operator where TFLite can."""
    if name in ("", "linear"):
        return index
    last = program.operators[-1] if program.operators else None
    if (
        name in ("relu", "relu6")
        and alone
        and last
        and last.output == index
        and last.kind in _FUSABLE
        and not last.fused
    ):
        program.operators[-1] = replace(last, fused=True)
        return index
    if name not in _ACTIVATIONS:
        raise UnsupportedLayer(
            f"No int8 operators of TFLM are known for the activation {name!r} of {call.name!r}. "
            f"Expected one of: {', '.join(sorted(_ACTIVATIONS))}."
        )
    for kind in _ACTIVATIONS[name]:
        index = program.emit(kind, call, [index], program.activations[index])
    return index


def _activation_name(layer: Any) -> str:
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope:
            return "leaky_relu"
        return "relu6" if layer.max_value == 6 else "relu"
    if isinstance(layer, layers.LeakyReLU):
        return "leaky_relu"
    if isinstance(layer, layers.ELU):
        return "elu"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _activation(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    name, index = _activation_name(call.layer), program.producer(call, _FUSABLE)
    if name in ("relu", "relu6") and index is not None:
        program.operators[index] = replace(program.operators[index], fused=True)
        return inputs[0]
    return _activate(program, call, inputs[0], name, alone=False)


def _nothing(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return inputs[0]


def _scale(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = program.activations[inputs[0]]
    scaled = program.emit("MUL", call, inputs, labels, kernel=(None, None, 1))
    return program.emit("ADD", call, [scaled], labels, kernel=(None, None, 1))


def _batch_norm(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.producer(call, _FOLDABLE)
    if index is not None:
        program.operators[index] = replace(program.operators[index], bias=True)
        return inputs[0]
    labels = program.activations[inputs[0]]
    row = first_row(labels)
    scaled = program.emit("MUL", call, inputs, labels, kernel=(None, row, 1))
    return program.emit("ADD", call, [scaled], labels, kernel=(None, row, 1))


def _kernel_elements(layer: Any) -> int:
    return int(np.prod(layer.kernel_size))


def _output(program: Builder, flow: Flow, index: int) -> Array:
    """The call's output labels with the rank of activation `index` (1-D maps run as 2-D ones)."""
    labels = flow.output[0]
    return labels[None] if labels.ndim < program.activations[index].ndim else labels


def _conv(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, index = call.layer, program.four(call, inputs[0])
    if getattr(layer, "padding", "") == "causal":
        index = program.four(call, _causal(program, call, program.like(call, index, 2)))
    rows, out = flow.weights["kernel"][-2:]
    window = _kernel_elements(layer)
    column = window > 1 or (layer.padding == "same" and max(layer.strides) > 1)
    output = program.emit(
        "CONV_2D", call, [index], _output(program, flow, index), kernel=(rows, out, window), bias=layer.use_bias,
        macs=(rows, window), window=(window * layer.groups, column),
    )  # fmt: skip
    return _activate(program, call, output, _activation_name(layer), alone=True)


def _causal(program: Builder, call: Call, index: int) -> int:
    labels, layer = program.activations[index], call.layer
    left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return program.emit(
        "PAD", call, [index], spread(first_row(labels), (labels.shape[0] + left, labels.shape[1])), constants=1
    )


def _depthwise(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.four(call, inputs[0])
    output = _depthwise_step(program, call, index, _output(program, flow, index), call.layer.use_bias)
    return _activate(program, call, output, _activation_name(call.layer), alone=True)


def _depthwise_step(program: Builder, call: Call, index: int, output: Array, bias: bool) -> int:
    layer = call.layer
    window = _kernel_elements(layer)
    plain = layer.depth_multiplier == 1 and max(layer.dilation_rate) == 1
    column = plain and layer.kernel_size not in ((3, 3), (1, 1), (1,))
    return program.emit(
        "DEPTHWISE_CONV_2D", call, [index], output, kernel=(None, first_row(output), window), bias=bias,
        macs=(None, window), window=(window, column),
    )  # fmt: skip


def _separable(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, index = call.layer, program.four(call, inputs[0])
    rows, out = flow.weights["pointwise_kernel"][-2:]
    labels = _output(program, flow, index)
    middle = spread(np.asarray(rows), (*labels.shape[:-1], len(np.asarray(rows))))
    between = _depthwise_step(program, call, index, middle, True)
    output = program.emit(
        "CONV_2D",
        call,
        [between],
        labels,
        kernel=(rows, out, 1),
        bias=layer.use_bias,
        macs=(rows, 1),
        window=(1, False),
    )
    return _activate(program, call, output, _activation_name(layer), alone=True)


def _dense(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer = call.layer
    rows, out = flow.weights["kernel"]
    index = program.like(call, inputs[0], flow.output[0].ndim)
    output = program.emit(
        "FULLY_CONNECTED", call, [index], flow.output[0], kernel=(rows, out, 1), bias=layer.use_bias, macs=(rows, 1)
    )
    return _activate(program, call, output, _activation_name(layer), alone=True)


def _pool(kind: str) -> Callable[..., int]:
    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        index = program.four(call, inputs[0])
        window = (int(np.prod(call.layer.pool_size)), kind == "AVERAGE_POOL_2D")
        return program.emit(kind, call, [index], _output(program, flow, index), window=window)

    return lowering


def _reduce(kind: str) -> Callable[..., int]:
    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        rank = 2 if type(call.layer).__name__.endswith("1D") else 3
        return program.emit(kind, call, [program.like(call, inputs[0], rank)], flow.output[0], constants=1)

    return lowering


def _pad(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.like(call, inputs[0], flow.output[0].ndim)
    return program.emit("PAD", call, [index], flow.output[0], constants=1)


def _crop(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.like(call, inputs[0], flow.output[0].ndim)
    return program.emit("STRIDED_SLICE", call, [index], flow.output[0], constants=3)


def _reshape(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    if program.activations[inputs[0]].shape == flow.output[0].shape:
        return inputs[0]
    return program.emit("RESHAPE", call, inputs[:1], flow.output[0], constants=1)


def _merge(kind: str) -> Callable[..., int]:
    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        rank = flow.output[0].ndim
        left = program.like(call, inputs[0], rank)
        for other in inputs[1:]:
            left = program.emit(kind, call, [left, program.like(call, other, rank)], flow.output[0])
        if isinstance(call.layer, layers.Average):
            left = program.emit("MUL", call, [left], flow.output[0], constants=1)
        return left

    return lowering


def _concatenate(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    indices = [program.like(call, index, flow.output[0].ndim) for index in inputs]
    return program.emit("CONCATENATION", call, indices, flow.output[0])


_TABLE: dict[type, Callable[..., int]] = {
    **dict.fromkeys([layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax], _activation),
    **dict.fromkeys(
        [layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise]
        + [layers.GaussianDropout, layers.ActivityRegularization, layers.Identity],
        _nothing,
    ),
    layers.Rescaling: _scale,
    layers.BatchNormalization: _batch_norm,
    **dict.fromkeys([layers.Conv1D, layers.Conv2D], _conv),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], _depthwise),
    **dict.fromkeys([layers.SeparableConv1D, layers.SeparableConv2D], _separable),
    layers.Dense: _dense,
    **dict.fromkeys([layers.MaxPooling1D, layers.MaxPooling2D], _pool("MAX_POOL_2D")),
    **dict.fromkeys([layers.AveragePooling1D, layers.AveragePooling2D], _pool("AVERAGE_POOL_2D")),
    **dict.fromkeys([layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D], _reduce("MEAN")),
    **dict.fromkeys([layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D], _reduce("REDUCE_MAX")),
    **dict.fromkeys([layers.ZeroPadding1D, layers.ZeroPadding2D], _pad),
    **dict.fromkeys([layers.Cropping1D, layers.Cropping2D], _crop),
    **dict.fromkeys([layers.Flatten, layers.Reshape], _reshape),
    **dict.fromkeys([layers.Add, layers.Average], _merge("ADD")),
    layers.Subtract: _merge("SUB"),
    layers.Multiply: _merge("MUL"),
    layers.Maximum: _merge("MAXIMUM"),
    layers.Minimum: _merge("MINIMUM"),
    layers.Concatenate: _concatenate,
}
