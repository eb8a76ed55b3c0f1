"""Layers that multiply by weights: convolutions, dense layers, embeddings; and pooling, which moves as they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call
from tfmcu_prune.lowering.elementwise import activate
from tfmcu_prune.program import Builder, Window
from tfmcu_prune.rules import Array, Flow, first_row, spread


def _two(value: Any, filler: int = 1) -> tuple[int, int]:
    """Height and width of what a layer gives for one or two axes."""
    sizes = (value, value) if isinstance(value, int) else tuple(value)
    return (filler, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def _window(layer: Any) -> Window:
    return Window(
        _two(layer.kernel_size),
        _two(layer.strides),
        _two(layer.dilation_rate),
        layer.padding == "same",
        getattr(layer, "groups", 1),
    )


def _output(program: Builder, flow: Flow, index: int) -> Array:
    """The call's output labels with the rank of activation `index` (1-D maps run as 2-D ones)."""
    labels = flow.outputs[0]
    return labels[None] if labels.ndim < program.activations[index].ndim else labels


def conv(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, window = call.layer, _window(call.layer)
    index = program.four(call, inputs[0])
    if layer.padding == "causal":
        index = program.four(call, _causal(program, call, program.like(call, index, 2)))
    rows, out = flow.weights["kernel"][-2:]
    index = program.emit(
        "CONV_2D", call, [index], _output(program, flow, index), kernel=(rows, out, window.elements),
        weight="kernel", bias=True, zeros=not layer.use_bias, macs=(rows, window.elements), window=window,
    )  # fmt: skip
    return activate(program, call, index)


def _causal(program: Builder, call: Call, index: int) -> int:
    labels, layer = program.activations[index], call.layer
    left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    padded = spread(first_row(labels), (labels.shape[0] + left, labels.shape[1]))
    return program.emit("PAD", call, [index], padded, constants=(24,), pads=((left, 0), (0, 0)))


def depthwise(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.four(call, inputs[0])
    index = _depthwise(program, call, index, _output(program, flow, index), call.layer.use_bias)
    return activate(program, call, index)


def _depthwise(program: Builder, call: Call, index: int, output: Array, bias: bool) -> int:
    """Without a bias it gets one of zeros, since TFLite's operator has one."""
    window = _window(call.layer)
    return program.emit(
        "DEPTHWISE_CONV_2D", call, [index], output, kernel=(None, first_row(output), window.elements),
        weight="depthwise", bias=True, zeros=not bias, macs=(None, window.elements), window=window,
    )  # fmt: skip


def separable(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    index = program.four(call, inputs[0])
    rows, out = flow.weights["pointwise_kernel"][-2:]
    labels = _output(program, flow, index)
    middle = spread(np.asarray(rows), (*labels.shape[:-1], len(np.asarray(rows))))
    between = _depthwise(program, call, index, middle, False)
    index = program.emit(
        "CONV_2D", call, [between], labels, kernel=(rows, out, 1), weight="pointwise", bias=True,
        zeros=not call.layer.use_bias, macs=(rows, 1), window=Window((1, 1)),
    )  # fmt: skip
    return activate(program, call, index)


def conv_transpose(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer, window = call.layer, _window(call.layer)
    index = program.four(call, inputs[0])
    out, rows = flow.weights["kernel"][-2:]
    index = program.emit(
        "TRANSPOSE_CONV", call, [index], _output(program, flow, index), kernel=(rows, out, window.elements),
        weight="kernel", bias=layer.use_bias, macs=(out, window.elements), window=window, constants=(16,),
    )  # fmt: skip
    return activate(program, call, index)


def dense(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    return activate(program, call, fully_connected(program, call, flow, inputs[0], "kernel", call.layer.use_bias))


def fully_connected(program: Builder, call: Call, flow: Flow, index: int, weight: str, bias: bool) -> int:
    rows, out = flow.weights[weight]
    labels = flow.outputs[0]
    index = program.like(call, index, labels.ndim)
    return program.emit(
        "FULLY_CONNECTED", call, [index], labels, kernel=(rows, out, 1), weight=weight, bias=bias, macs=(rows, 1)
    )


def embedding(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    layer = call.layer
    return program.emit(
        "GATHER",
        call,
        inputs,
        flow.outputs[0],
        weight="embeddings",
        kernel=(None, flow.weights["embeddings"][1], layer.input_dim),
    )


def pool(kind: str) -> Callable[..., int]:
    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        config = call.layer.get_config()
        size = config["pool_size"]
        window = Window(_two(size), _two(config["strides"] or size), same=config["padding"] == "same")
        index = program.four(call, inputs[0])
        return program.emit(kind, call, [index], _output(program, flow, index), window=window)

    return lowering
