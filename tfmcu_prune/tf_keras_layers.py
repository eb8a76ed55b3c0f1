"""The ONE table Keras layer -> layers of tf_keras that tensorflow-model-optimization can quantize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array

Step = tuple[str, dict[str, Any], list[Array]]
"""A tf_keras layer: its type, its configuration, its weights."""


def steps_of(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    name = type(call.layer).__name__
    if not isinstance(call.layer, keras.Layer) or not type(call.layer).__module__.startswith("keras."):
        raise lacking(call, "is not a layer of Keras", "write it with layers of Keras")
    if name not in _TABLE:
        raise lacking(call, "is unknown to tensorflow-model-optimization", _REMEDIES.get(name, "replace the layer"))
    return _TABLE[name](call, graph)


def lacking(call: graphs.Call, reason: str, remedy: str) -> UnsupportedLayer:
    return UnsupportedLayer(
        f"The layer {call.name!r} ({type(call.layer).__name__}) {reason}, so the model cannot be trained with the "
        f"rounding of int8. Expected one of: {', '.join(sorted(_TABLE))}. Either {remedy}, or quantize the model after "
        "its training: convert(model, calibration)."
    )


_REMEDIES = {
    **dict.fromkeys(("Rescaling", "Normalization"), "do this in the preparation of the data"),
    "Multiply": "leave out the squeeze-and-excite block",
    "Subtract": "negate the weights before it and use Add",
    "PReLU": "use LeakyReLU or ReLU",
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "Bidirectional"), "use Conv1D layers"),
}


def _same(*names: str, kind: str | None = None) -> Callable[..., list[Step]]:
    """A layer whose settings `names` are those in tf_keras, with its weights."""

    def steps(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
        config = call.layer.get_config()
        made = {"name": call.name, **{name: config[name] for name in names}}
        return [(kind or type(call.layer).__name__, made, _weights(call.layer))]

    return steps


def _weights(layer: Any) -> list[Array]:
    return [np.asarray(value) for value in layer.get_weights()]


def _convolution(*names: str) -> Callable[..., list[Step]]:
    same = _same("kernel_size", "strides", "padding", "use_bias", *names)

    def steps(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
        return _activated(call, same(call, graph))

    return steps


def _activated(call: graphs.Call, steps: list[Step]) -> list[Step]:
    """The steps, with the regularizers of the layer, and its activation behind them."""
    config = call.layer.get_config()
    kind, made, weights = steps[-1]
    for name in ("kernel_regularizer", "depthwise_regularizer", "bias_regularizer"):
        given = config.get(name)
        if given is not None:
            made[name] = {"class_name": given["class_name"], "config": given["config"]}
    activation = config["activation"]
    if activation in ("linear", None):
        return [*steps[:-1], (kind, made, weights)]
    if activation in _RELU:
        relu: Step = ("ReLU", {"name": call.name, **_RELU[activation]}, [])
        return [*steps[:-1], (kind, {**made, "name": f"{call.name}_linear"}, weights), relu]
    if activation not in _ACTIVATIONS:
        raise lacking(call, f"has the activation {activation!r}, which is unknown to it", "use relu or relu6")
    linear = (kind, {**made, "name": f"{call.name}_linear"}, weights)
    return [*steps[:-1], linear, ("Activation", {"name": call.name, "activation": activation}, [])]


_RELU: dict[str, dict[str, float]] = {"relu": {}, "relu6": {"max_value": 6.0}}
_ACTIVATIONS = ("softmax", "sigmoid", "tanh")


def _dense(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    return _activated(call, _with_normalization(call, graph, _same("units", "use_bias")(call, graph)))


def _transposed(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    same = _same("filters", "kernel_size", "strides", "padding", "output_padding", "use_bias")
    return _activated(call, _with_normalization(call, graph, same(call, graph)))


def _leaky_relu(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    layer: Any = call.layer
    return [("LeakyReLU", {"name": call.name, "alpha": float(layer.negative_slope)}, [])]


def _conv1d(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    """A convolution over a map of height 1, the zeros of a causal one before it."""
    layer: Any = call.layer
    (size,), (stride,), (dilation,) = layer.kernel_size, layer.strides, layer.dilation_rate
    causal = layer.padding == "causal"
    before = [_padding(f"{call.name}_pad", ((0, 0), ((size - 1) * dilation, 0)))] if causal and size > 1 else []
    made = {
        "name": call.name, "filters": layer.filters, "kernel_size": (1, size), "strides": (stride, stride),
        "padding": "valid" if causal else layer.padding, "dilation_rate": (1, dilation), "use_bias": layer.use_bias,
        "groups": layer.groups,
    }  # fmt: skip
    kernel, *bias = _weights(layer)
    return _activated(call, [*before, ("Conv2D", made, [kernel[None], *bias])])


def _padding(name: str, pads: Any) -> Step:
    return "ZeroPadding2D", {"name": name, "padding": pads}, []


def _pads1d(kind: str, setting: str) -> Callable[..., list[Step]]:
    def steps(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
        pads = tuple(getattr(call.layer, setting))
        return [(kind, {"name": call.name, setting: ((0, 0), pads)}, [])]

    return steps


def _pool1d(kind: str) -> Callable[..., list[Step]]:
    def steps(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
        layer: Any = call.layer
        (size,), (stride,) = np.atleast_1d(layer.pool_size).tolist(), np.atleast_1d(layer.strides).tolist()
        made = {"name": call.name, "pool_size": (1, size), "strides": (1, stride), "padding": layer.padding}
        return [(kind, made, [])]

    return steps


def _normalization(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    """A batch normalization; where tensorflow-model-optimization knows none a factor and an offset a channel."""
    layer: Any = call.layer
    before = _normalized_by(call, graph)
    if before in ("Conv1D", "Conv2D", "DepthwiseConv2D"):
        return _same("momentum", "epsilon", "center", "scale")(call, graph)
    if before in _FOLDED:
        return []
    rank = len(graph.shapes[call.inputs[0]])
    if rank not in (3, 4) or layer.axis not in (-1, rank - 1):
        raise lacking(call, "normalizes no map of channels and follows no Dense", "put it behind a Dense")
    factor, offset = _factor_and_offset(layer)
    return [("DepthwiseConv2D", {"name": call.name, "kernel_size": 1}, [factor.reshape(1, 1, -1, 1), offset])]


def _normalized_by(normalization: graphs.Call, graph: graphs.Graph) -> str:
    """The type of the linear layer that feeds this normalization alone; "" if there is none."""
    (key,) = normalization.inputs
    before = [call for call in graph.calls if key in call.outputs]
    alone = graph.only_reader(key) is not None
    linear = before and getattr(before[0].layer, "activation", None) is keras.activations.linear
    return type(before[0].layer).__name__ if alone and linear else ""


def _factor_and_offset(layer: Any) -> tuple[Array, Array]:
    """What a batch normalization multiplies by and adds in inference."""
    mean, variance = _numpy(layer.moving_mean), _numpy(layer.moving_variance)
    factor = (_numpy(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return factor, (_numpy(layer.beta) if layer.center else 0.0) - mean * factor


def _numpy(weight: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float64)


_FOLDED = {"Dense": -1, "Conv2DTranspose": 2}
"""Layers that the batch normalization behind them is folded into, and the axis of the kernel's output channels."""


def _with_normalization(call: graphs.Call, graph: graphs.Graph, steps: list[Step]) -> list[Step]:
    """The one step of a layer, with the batch normalization behind it folded into its weights."""
    reader = graph.only_reader(call.outputs[0])
    if reader is None or not isinstance(reader.layer, keras.layers.BatchNormalization):
        return steps
    if _normalized_by(reader, graph) not in _FOLDED:
        return steps
    ((kind, made, weights),) = steps
    factor, offset = _factor_and_offset(reader.layer)
    kernel, bias = weights[0], weights[1] if len(weights) > 1 else 0.0
    shape = [1] * kernel.ndim
    shape[_FOLDED[kind]] = -1
    return [(kind, {**made, "use_bias": True}, [kernel * factor.reshape(shape), bias * factor + offset])]


def _relu(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    layer: Any = call.layer
    made = {"name": call.name, "max_value": layer.max_value, "negative_slope": layer.negative_slope,
            "threshold": layer.threshold}  # fmt: skip
    return [("ReLU", {name: float(v) if name != "name" and v is not None else v for name, v in made.items()}, [])]


def _activation(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    name = call.layer.get_config()["activation"]
    if name in _RELU:
        return [("ReLU", {"name": call.name, **_RELU[name]}, [])]
    if name not in (*_ACTIVATIONS, "linear"):
        raise lacking(call, f"has the activation {name!r}, which is unknown to it", "use relu or relu6")
    return [("Activation", {"name": call.name, "activation": name}, [])]


def _reshape(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    shape = graph.shapes.get(call.outputs[0]) or call.shapes[0]
    return [("Reshape", {"name": call.name, "target_shape": _four(shape[1:])}, [])]


def _four(shape: Sequence[Any]) -> tuple[Any, ...]:
    return (1, *shape) if len(shape) == 2 else tuple(shape)


def _global_pool(kind: str) -> Callable[..., list[Step]]:
    def steps(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
        if call.layer.get_config()["keepdims"]:
            raise lacking(call, "keeps its dimensions", "put a Reshape behind it")
        return [(kind, {"name": call.name}, [])]

    return steps


def _merge(call: graphs.Call, graph: graphs.Graph) -> list[Step]:
    config = call.layer.get_config()
    rank = len(graph.shapes[call.inputs[0]])
    axis = config.get("axis", -1)
    if axis not in (-1, rank - 1):
        raise lacking(call, f"works on axis {axis}", "let it work on the channels, axis=-1")
    return [(type(call.layer).__name__, {"name": call.name}, [])]


_POOL = ("pool_size", "strides", "padding")
_TABLE: dict[str, Callable[[graphs.Call, graphs.Graph], list[Step]]] = {
    "Activation": _activation,
    "Add": _merge,
    "AveragePooling1D": _pool1d("AveragePooling2D"),
    "AveragePooling2D": _same(*_POOL),
    "BatchNormalization": _normalization,
    "Concatenate": _merge,
    "Conv1D": _conv1d,
    "Conv2D": _convolution("filters", "dilation_rate", "groups"),
    "Conv2DTranspose": _transposed,
    "Cropping1D": _pads1d("Cropping2D", "cropping"),
    "Cropping2D": _same("cropping"),
    "Dense": _dense,
    "DepthwiseConv2D": _convolution("depth_multiplier", "dilation_rate"),
    "Dropout": _same("rate"),
    "Flatten": _same(),
    "GlobalAveragePooling1D": _global_pool("GlobalAveragePooling2D"),
    "GlobalAveragePooling2D": _global_pool("GlobalAveragePooling2D"),
    "GlobalMaxPooling1D": _global_pool("GlobalMaxPooling2D"),
    "GlobalMaxPooling2D": _global_pool("GlobalMaxPooling2D"),
    "LeakyReLU": _leaky_relu,
    "MaxPooling1D": _pool1d("MaxPooling2D"),
    "MaxPooling2D": _same(*_POOL),
    "ReLU": _relu,
    "Reshape": _reshape,
    "Softmax": _same(),
    "SpatialDropout1D": _same("rate", kind="SpatialDropout2D"),
    "SpatialDropout2D": _same("rate"),
    "UpSampling2D": _same("size", "interpolation"),
    "ZeroPadding1D": _pads1d("ZeroPadding2D", "padding"),
    "ZeroPadding2D": _same("padding"),
}
