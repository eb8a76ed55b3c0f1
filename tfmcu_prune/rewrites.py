"""Layers written with other operations for the conversion: the same function, in operators that TFLM has in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.graph import Graph
from tfmcu_prune.recurrence import GATES, bidirectional, recurrent
from tfmcu_prune.rules import is_augmentation


def rewritten(layer: Any) -> Callable[..., Any]:
    """Return a function that computes what `layer` does for a batch of 1; the layer itself where it converts well.

    Raises:
        UnsupportedLayer: A recurrent layer that cannot be written step by step.
    """
    if is_augmentation(layer):
        return _given(lambda x: x)
    ours = type(layer).__module__.split(".")[0] == "keras"
    rewrite = _REWRITES.get(type(layer).__name__) if ours else None
    function = rewrite(layer) if rewrite is not None else layer
    if function is layer:
        _refuse_loops(layer)
        return layer
    return _given(function)


def _given(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, deaf to `training=` and `mask=`."""

    def call(*args: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def refuse_masks(graph: Graph) -> None:
    """Raise an UnsupportedLayer where the mask of a Masking or an Embedding says which steps a recurrent layer skips.

    A layer that supports masking hands it on, as long as its output has steps.
    """
    masked: set[int] = set()
    for call in graph.calls:
        layer = call.layer
        given = masked.intersection(call.inputs) or call.kwargs.get("mask") is not None
        if given and isinstance(layer, (layers.RNN, layers.Bidirectional)):
            raise UnsupportedLayer(
                f"The layer {call.name!r} ({type(layer).__name__}) skips the steps that a mask leaves out, which the "
                "int8 conversion does not. Remove the Masking layer or mask=..., set mask_zero=False in the Embedding, "
                "and train with all steps."
            )
        makes = isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False)
        if makes or (given and getattr(layer, "supports_masking", False)):
            steps = [key for key, shape in zip(call.outputs, call.shapes, strict=True) if shape and len(shape) > 2]
            masked.update(steps)


def _refuse_loops(layer: Any) -> None:
    parts = [layer, *(getattr(layer, name, None) for name in ("forward_layer", "backward_layer", "layer"))]
    loops = any(isinstance(part, layers.RNN) and not getattr(part, "unroll", False) for part in parts)
    if loops or type(layer).__name__.startswith("ConvLSTM"):
        raise UnsupportedLayer(
            f"The layer {layer.name!r} ({type(layer).__name__}) loops over its steps, which the int8 converter does "
            "not take. Replace it by an LSTM, GRU, SimpleRNN or Conv1D; or, where it has unroll=, build the model with "
            "unroll=True in this layer (the weights stay the same)."
        )


def _upsampling(layer: Any) -> Callable[..., Any]:
    """The nearest neighbour, where Keras repeats (TILE)."""
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return layer
    size = np.atleast_1d(layer.size).tolist()

    def call(x: Any) -> Any:
        if len(size) == 1:
            return ops.squeeze(_resized(ops.expand_dims(x, 1), (1, x.shape[1] * size[0])), 1)
        return _resized(x, (x.shape[1] * size[0], x.shape[2] * size[1]))

    return call


def _resized(x: Any, places: tuple[int, int]) -> Any:
    return ops.image.resize(x, places, interpolation="nearest", data_format="channels_last")


def _repeat_vector(layer: Any) -> Callable[..., Any]:
    return lambda x: ops.squeeze(_resized(ops.expand_dims(x, (1, 2)), (1, layer.n)), 1)


def _time_distributed(layer: Any) -> Callable[..., Any]:
    """A layer that works on the last axis alone takes all steps at once."""
    inner = layer.layer
    return inner if type(inner).__name__ in AT_EVERY_PLACE else layer


AT_EVERY_PLACE = {"Dense", "Activation", "ReLU", "LeakyReLU", "Dropout", "Rescaling"}


def _layer_norm(layer: Any) -> Callable[..., Any]:
    axes = [int(axis) for axis in np.atleast_1d(layer.axis)]

    def call(x: Any) -> Any:
        return _scaled(layer, _normalized(x, axes, layer.epsilon))

    return call


def _rms_norm(layer: Any) -> Callable[..., Any]:
    axes = [int(axis) for axis in np.atleast_1d(layer.axis)]

    def call(x: Any) -> Any:
        return x * ops.rsqrt(ops.mean(x * x, axes, keepdims=True) + layer.epsilon) * layer.scale

    return call


def _group_norm(layer: Any) -> Callable[..., Any]:
    def call(x: Any) -> Any:
        channels, places = x.shape[-1], list(range(1, len(x.shape) - 1))
        groups = channels if layer.groups == -1 else layer.groups
        if groups == channels:
            return _scaled(layer, _normalized(x, places, layer.epsilon))
        apart = ops.reshape(x, (1, -1, groups, channels // groups))
        normalized = _normalized(apart, [1, 3], layer.epsilon)
        return _scaled(layer, ops.reshape(normalized, x.shape))

    return call if layer.axis in (-1,) else layer


def _normalized(x: Any, axes: Sequence[int], epsilon: float) -> Any:
    """Centered first: no sum of large numbers that cancel, and no operator without an int8 kernel."""
    mean = ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axes, keepdims=True)
    return (x - mean) * ops.rsqrt(variance + epsilon)


def _scaled(layer: Any, x: Any) -> Any:
    if layer.scale:
        x = x * layer.gamma
    return x + layer.beta if layer.center else x


_REWRITES: dict[str, Callable[[Any], Callable[..., Any]]] = {
    **dict.fromkeys(["UpSampling1D", "UpSampling2D"], _upsampling),
    **dict.fromkeys(GATES, recurrent),
    "Bidirectional": bidirectional,
    "RepeatVector": _repeat_vector,
    "TimeDistributed": _time_distributed,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "Negative": lambda _: lambda x: x * -1.0,
    "Square": lambda _: lambda x: x * x,
}
