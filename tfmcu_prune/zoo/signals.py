"""Networks that read signals: (steps, channels)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tfmcu_prune.zoo.blocks import norm, normalized


def resnet1d(input_shape: Sequence[int], classes: int, *, width: int = 64) -> keras.Model:
    """Build the 1-D ResNet for time series: three residual blocks of three convolutions at one resolution.

    Args:
        input_shape: (steps, channels).
        classes: Number of classes.
        width: Channels of the first block; the other two have twice as many.

    Returns:
        A functional model.

    Example:
        >>> resnet1d((128, 6), 5).count_params()
        508933

    Source:
        Wang et al. 2017, Time series classification from scratch with deep neural networks, arXiv:1611.06455; no biases
        before batch normalization here.
    """
    inputs = x = keras.Input(tuple(input_shape))
    for block, filters in enumerate((width, 2 * width, 2 * width), start=1):
        y = x
        for i, kernel in enumerate((8, 5, 3), start=1):
            y = normalized(y, _conv(filters, kernel, f"block{block}_conv{i}"), activation="relu" if i < 3 else None)
        if x.shape[-1] == filters:
            x = norm(x, f"block{block}_shortcut_bn")
        else:
            x = normalized(x, _conv(filters, 1, f"block{block}_shortcut"), activation=None)
        x = layers.ReLU(name=f"block{block}_relu")(layers.Add(name=f"block{block}_add")([x, y]))
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, _classifier(x, classes), name="resnet1d")


def tcn(
    input_shape: Sequence[int],
    classes: int,
    *,
    width: int = 32,
    blocks: int = 4,
    kernel: int = 3,
    dropout: float = 0.05,
) -> keras.Model:
    """Build a temporal convolutional network: residual blocks of causal convolutions, dilated 1, 2, 4 ...

    The last step of the last block, which sees the whole signal if 1 + 2 (kernel - 1) (2 ** blocks - 1) is its length
    or more, is classified.

    Args:
        input_shape: (steps, channels).
        classes: Number of classes.
        width: Channels of every block.
        blocks: Number of residual blocks.
        kernel: Kernel of every convolution.
        dropout: Rate after each convolution.

    Returns:
        A functional model.

    Example:
        >>> tcn((64, 6), 5).count_params()
        23493

    Source:
        Bai et al. 2018, arXiv:1803.01271; batch normalization in place of weight normalization.
    """
    inputs = x = keras.Input(tuple(input_shape))
    for block in range(blocks):
        name, y = f"block{block + 1}", x
        for i in (1, 2):
            y = normalized(y, _conv(width, kernel, f"{name}_conv{i}", padding="causal", dilation=2**block))
            y = layers.SpatialDropout1D(dropout, name=f"{name}_dropout{i}")(y)
        shortcut = x if x.shape[-1] == width else layers.Conv1D(width, 1, name=f"{name}_shortcut")(x)
        x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, y]))
    x = layers.Cropping1D((int(input_shape[0]) - 1, 0), name="last_step")(x)
    return keras.Model(inputs, _classifier(layers.Flatten(name="flatten")(x), classes), name="tcn")


def _conv(filters: int, size: int, name: str, *, padding: str = "same", dilation: int = 1) -> keras.layers.Layer:
    return layers.Conv1D(
        filters,
        size,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def _classifier(x: Any, classes: int) -> Any:
    return layers.Dense(classes, activation="softmax", name="classifier")(x)
