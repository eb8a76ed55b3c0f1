"""What the networks of the zoo are built of."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

_MOMENTUM = 0.9


def norm(x: Any, name: str) -> Any:
    """Apply a BatchNormalization whose statistics follow a network that is pruned within a few epochs."""
    return layers.BatchNormalization(momentum=_MOMENTUM, name=name)(x)


def normalized(x: Any, layer: keras.layers.Layer, *, activation: str | None = "relu") -> Any:
    """Apply a layer, a BatchNormalization and an activation."""
    x = norm(layer(x), f"{layer.name}_bn")
    return x if activation is None else layers.Activation(activation, name=f"{layer.name}_{activation}")(x)


def separable(x: Any, width: int, strides: int, name: str, *, kernel_initializer: str = "glorot_uniform") -> Any:
    """Apply a depthwise and a pointwise convolution, each with BatchNormalization and ReLU."""
    depthwise = layers.DepthwiseConv2D(
        3, strides=strides, padding="same", depthwise_initializer=kernel_initializer, name=f"{name}_dw"
    )
    pointwise = layers.Conv2D(width, 1, kernel_initializer=kernel_initializer, name=f"{name}_pw")
    return normalized(normalized(x, depthwise), pointwise)


def residual(x: Any, shortcut: Any, filters: int, strides: int, name: str, *, use_bias: bool = True) -> Any:
    """Apply two 3x3 convolutions and add the shortcut, a tensor."""
    y = normalized(x, conv(filters, 3, strides, f"{name}_conv1", use_bias=use_bias))
    y = normalized(y, conv(filters, 3, 1, f"{name}_conv2", use_bias=use_bias), activation=None)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, y]))


def inverted_residual(
    x: Any, filters: int, name: str, *, kernel: int, expansion: int, strides: int, activation: str = "relu6"
) -> Any:
    """Widen by a pointwise convolution, apply a depthwise one, narrow again; add the input where shapes allow."""
    y, width = x, x.shape[-1]
    if expansion > 1:
        y = normalized(y, conv(expansion * width, 1, 1, f"{name}_expand", use_bias=False), activation=activation)
    depthwise = layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=False, name=f"{name}_dw")
    y = normalized(y, depthwise, activation=activation)
    y = normalized(y, conv(filters, 1, 1, f"{name}_project", use_bias=False), activation=None)
    return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and width == filters else y


def conv(filters: int, size: int, strides: int, name: str, *, use_bias: bool = True) -> keras.layers.Layer:
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )


def scaled(width: int, alpha: float) -> int:
    return max(8, round(width * alpha))


def classifier(x: Any, classes: int, *, kernel_initializer: str = "glorot_uniform") -> Any:
    """Apply a mean over places and a Dense with softmax."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(classes, activation="softmax", kernel_initializer=kernel_initializer, name="classifier")(x)
