"""A dozen tiny networks, one a pattern; every rule is tested on them (strip, resources, save, convert)."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers


def plain() -> keras.Model:
    """Sequential: convolutions, batch norm, pooling, dense."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(6, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.AveragePooling2D(2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ],
        name="plain",
    )


def residual() -> keras.Model:
    """A residual sum with a projection and one with an identity."""
    inputs = keras.Input((8, 8, 3))
    x = _conv_bn_relu(inputs, 8)
    y = _conv_bn_relu(x, 8)
    x = layers.ReLU()(layers.Add()([x, y]))
    y = layers.Conv2D(12, 3, strides=2, padding="same")(x)
    shortcut = layers.Conv2D(12, 1, strides=2, padding="same")(x)
    x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="residual")


def depthwise() -> keras.Model:
    """Depthwise and pointwise convolutions with explicit padding, as in MobileNet."""
    inputs = keras.Input((10, 10, 2))
    x = _conv_bn_relu(inputs, 8)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, strides=2, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    x = _conv_bn_relu(x, 12, 1)
    x = layers.DepthwiseConv2D(5, padding="same", depth_multiplier=1, activation="relu")(x)
    x = layers.Dropout(0.1)(x)
    x = layers.Conv2D(6, 1)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)), name="depthwise")


def multiplier() -> keras.Model:
    """A depthwise convolution that makes two channels of each."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    x = layers.Conv2D(5, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)), name="multiplier")


def separable() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.SeparableConv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="separable")


def concat() -> keras.Model:
    """An inception block, and a batch norm behind the concatenation."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    a = layers.Conv2D(4, 1, activation="relu")(x)
    b = layers.Conv2D(5, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([a, x, b])
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2D(7, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="concat")


def concat_add() -> keras.Model:
    """Two halves put together and added to a whole: one convolution's channels fall into two groups."""
    inputs = keras.Input((8, 8, 2))
    halves = [layers.Conv2D(4, 3, padding="same", activation="relu")(inputs) for _ in range(2)]
    whole = layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.Add()([layers.Concatenate()(halves), whole])
    x = layers.Conv2D(6, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="concat_add")


def flatten() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Reshape((9, 6))(x)
    x = layers.Dense(5, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.2)(x)), name="flatten")


def squeeze_excite() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = _conv_bn_relu(inputs, 8)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Conv2D(6, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="squeeze_excite")


def shared() -> keras.Model:
    """One convolution called twice."""
    inputs = keras.Input((8, 8, 3))
    again = layers.Conv2D(6, 3, padding="same", activation="relu")
    x = layers.Conv2D(6, 1, activation="relu")(inputs)
    x = again(again(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="shared")


def nested() -> keras.Model:
    """A Sequential inside a functional model."""
    block = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(8, 3, padding="same"), layers.ReLU()], name="block")
    inputs = keras.Input((8, 8, 3))
    x = block(layers.Conv2D(6, 3, padding="same", activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="nested")


def two_in_two_out() -> keras.Model:
    left, right = keras.Input((8, 8, 2), name="left"), keras.Input((6,), name="right")
    x = layers.Conv2D(6, 3, activation="relu")(left)
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Dense(6, activation="relu")(right)
    z = layers.Concatenate()([layers.Multiply()([x, y]), x])
    z = layers.Dense(8, activation="relu")(z)
    return keras.Model([left, right], [layers.Dense(3)(z), layers.Dense(2)(x)], name="two_in_two_out")


def one_dimensional() -> keras.Model:
    inputs = keras.Input((24, 4))
    x = layers.Conv1D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.MaxPooling1D()(x)
    x = layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    x = layers.SeparableConv1D(6, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="one_dimensional")


def grouped() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.Conv2D(12, 3, groups=2, activation="relu")(x)
    x = layers.Conv2D(6, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="grouped")


def dense() -> keras.Model:
    inputs = keras.Input((10,))
    x = layers.Dense(12, activation="relu")(inputs)
    y = layers.Dense(12, activation="tanh")(x)
    x = layers.Subtract()([x, y])
    return keras.Model(inputs, layers.Dense(2, activation="sigmoid")(x), name="dense")


def _conv_bn_relu(x: keras.KerasTensor, filters: int, size: int = 3) -> keras.KerasTensor:
    x = layers.Conv2D(filters, size, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def activations() -> keras.Model:
    """Every activation with an int8 kernel."""
    inputs = keras.Input((8, 8, 2))
    names = ("relu6", "silu", "hard_silu", "sigmoid", "tanh", "hard_sigmoid", "leaky_relu")
    x = layers.Concatenate()([layers.Conv2D(4, 1, activation=name)(inputs) for name in names])
    x = layers.LeakyReLU()(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)), name="activations")


ALL: tuple[Callable[[], keras.Model], ...] = (
    plain,
    residual,
    depthwise,
    multiplier,
    separable,
    concat,
    concat_add,
    flatten,
    squeeze_excite,
    shared,
    nested,
    two_in_two_out,
    one_dimensional,
    grouped,
    dense,
    activations,
)
