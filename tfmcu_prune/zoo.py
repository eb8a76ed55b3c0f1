"""Reference networks for microcontrollers, as plain Keras models with random weights.

The MLPerf Tiny ones follow the reference models of https://github.com/mlcommons/tiny (Apache-2.0) layer by layer and
end in softmax as those do. BatchNormalization has momentum 0.9 here, so that its statistics follow a network that is
pruned within a few epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

_MOMENTUM = 0.9
_MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def ds_cnn(
    input_shape: Sequence[int],
    classes: int,
    *,
    width: int = 64,
    blocks: int = 4,
    kernel: tuple[int, int] = (10, 4),
    strides: int = 2,
    dropout: tuple[float, float] = (0.2, 0.4),
) -> keras.Model:
    """Build DS-CNN: a convolution, then blocks of a depthwise and a pointwise convolution at one resolution.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        width: Channels of every layer.
        blocks: Number of depthwise separable blocks.
        kernel: Kernel of the first convolution.
        strides: Strides of the first convolution.
        dropout: Rates after the first convolution and before the classifier.

    Returns:
        A functional model; with (49, 10, 1), 12 classes and the defaults it is the keyword spotter of MLPerf Tiny.

    Example:
        >>> ds_cnn((49, 10, 1), 12).count_params()
        24908

    Source:
        Zhang et al. 2017, Hello Edge, arXiv:1711.07128; mlcommons/tiny v0.1/benchmarks/audio_wake_words/keras_model.py.
    """
    inputs = keras.Input(tuple(input_shape))
    x = _normalized(inputs, layers.Conv2D(width, kernel, strides=strides, padding="same", name="conv"))
    x = layers.Dropout(dropout[0])(x)
    for i in range(1, blocks + 1):
        x = _separable(x, width, 1, f"block{i}")
    x = layers.Dropout(dropout[1])(x)
    return keras.Model(inputs, _classifier(x, classes), name="ds_cnn")


def mobilenet_v1(
    input_shape: Sequence[int], classes: int, *, alpha: float = 0.25, blocks: int = 13, strides: int = 2
) -> keras.Model:
    """Build MobileNet v1: a convolution, then depthwise separable blocks that widen as the resolution falls.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        alpha: Factor of all widths (32 to 1024); at least 8 channels stay.
        blocks: How many of the 13 blocks to keep, from the first; small images need fewer.
        strides: Strides of the first convolution.

    Returns:
        A functional model; with (96, 96, 3), 2 classes and the defaults it is the person detector of MLPerf Tiny.

    Example:
        >>> mobilenet_v1((96, 96, 3), 2).count_params()
        221794

    Source:
        Howard et al. 2017, arXiv:1704.04861; mlcommons/tiny v0.1/benchmarks/visual_wake_words/vww_model.py.
    """
    if not 1 <= blocks <= len(_MOBILENET_V1):
        raise ValueError(f"MobileNet v1 has 13 blocks: expected 1 to 13. Received: blocks={blocks}")
    he = "he_normal"
    inputs = keras.Input(tuple(input_shape))
    first = layers.Conv2D(_scaled(32, alpha), 3, strides=strides, padding="same", kernel_initializer=he, name="conv")
    x = _normalized(inputs, first)
    for i, (width, step) in enumerate(_MOBILENET_V1[:blocks], start=1):
        x = _separable(x, _scaled(width, alpha), step, f"block{i}", kernel_initializer=he)
    return keras.Model(inputs, _classifier(x, classes), name="mobilenet_v1")


def resnet8(input_shape: Sequence[int], classes: int, *, width: int = 16) -> keras.Model:
    """Build ResNet-8: a convolution and three residual stacks of one, two and four times its width.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        width: Channels of the first stack.

    Returns:
        A functional model; with (32, 32, 3), 10 classes and the default it is the image classifier of MLPerf Tiny.

    Example:
        >>> resnet8((32, 32, 3), 10).count_params()
        78666

    Source:
        He et al. 2016, arXiv:1512.03385; mlcommons/tiny benchmark/training/image_classification/keras_model.py.
    """
    inputs = keras.Input(tuple(input_shape))
    x = _normalized(inputs, _conv3(width, 1, "conv"))
    for i, strides in enumerate((1, 2, 2), start=1):
        filters = width * 2 ** (i - 1)
        y = _normalized(x, _conv3(filters, strides, f"stack{i}_conv1"))
        y = _normalized(y, _conv3(filters, 1, f"stack{i}_conv2"), activation=None)
        if strides > 1:
            x = layers.Conv2D(
                filters, 1, strides=strides, padding="same", kernel_initializer="he_normal", name=f"stack{i}_shortcut"
            )(x)
        x = layers.ReLU(name=f"stack{i}_relu")(layers.Add(name=f"stack{i}_add")([x, y]))
    return keras.Model(inputs, _classifier(x, classes, kernel_initializer="he_normal"), name="resnet8")


def vgg_small(input_shape: Sequence[int], classes: int, *, widths: Sequence[int] = (16, 16, 32, 32, 64)) -> keras.Model:
    """Build a small VGG: five 3x3 convolutions with batch normalization, pooled after the second and the fourth.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        widths: Channels of the five convolutions.

    Example:
        >>> vgg_small((28, 28, 1), 10).count_params()
        35994

    Source:
        Simonyan & Zisserman 2015, arXiv:1409.1556, cut down.
    """
    if len(widths) != 5:
        raise ValueError(f"vgg_small has five convolutions: expected five widths. Received: widths={tuple(widths)}")
    inputs = x = keras.Input(tuple(input_shape))
    for i, width in enumerate(widths, start=1):
        x = _normalized(x, layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}"))
        if i in (2, 4):
            x = layers.MaxPooling2D(name=f"pool{i // 2}")(x)
    return keras.Model(inputs, _classifier(x, classes), name="vgg_small")


def fc_autoencoder(features: int = 640, *, width: int = 128, code: int = 8) -> keras.Model:
    """Build the fully connected autoencoder for anomaly detection: four dense layers, a narrow code, four more.

    Args:
        features: Size of the input and of the output.
        width: Units of the hidden layers.
        code: Units of the layer in the middle.

    Returns:
        A functional model; with the defaults it is the anomaly detector of MLPerf Tiny.

    Example:
        >>> fc_autoencoder().count_params()
        269992

    Source:
        mlcommons/tiny v0.1/benchmarks/anomaly_detection/keras_model.py.
    """
    inputs = x = keras.Input((features,))
    for i, units in enumerate((*[width] * 4, code, *[width] * 4), start=1):
        x = _normalized(x, layers.Dense(units, name=f"dense{i}"))
    return keras.Model(inputs, layers.Dense(features, name="output")(x), name="fc_autoencoder")


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "ds_cnn": ds_cnn,
    "mobilenet_v1": mobilenet_v1,
    "resnet8": resnet8,
    "vgg_small": vgg_small,
}
"""The classifiers by name; each is called with (input_shape, classes)."""


def _normalized(x: Any, layer: keras.layers.Layer, *, activation: str | None = "relu") -> Any:
    x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{layer.name}_bn")(layer(x))
    return x if activation is None else layers.Activation(activation, name=f"{layer.name}_{activation}")(x)


def _separable(x: Any, width: int, strides: int, name: str, *, kernel_initializer: str = "glorot_uniform") -> Any:
    depthwise = layers.DepthwiseConv2D(
        3, strides=strides, padding="same", depthwise_initializer=kernel_initializer, name=f"{name}_dw"
    )
    pointwise = layers.Conv2D(width, 1, kernel_initializer=kernel_initializer, name=f"{name}_pw")
    return _normalized(_normalized(x, depthwise), pointwise)


def _conv3(filters: int, strides: int, name: str) -> keras.layers.Layer:
    return layers.Conv2D(filters, 3, strides=strides, padding="same", kernel_initializer="he_normal", name=name)


def _scaled(width: int, alpha: float) -> int:
    return max(8, round(width * alpha))


def _classifier(x: Any, classes: int, *, kernel_initializer: str = "glorot_uniform") -> Any:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(classes, activation="softmax", kernel_initializer=kernel_initializer, name="classifier")(x)
