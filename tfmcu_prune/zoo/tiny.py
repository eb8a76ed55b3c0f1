"""The four reference networks of MLPerf Tiny."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tfmcu_prune.zoo.blocks import classifier, conv, normalized, residual, scaled, separable

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
    x = normalized(inputs, layers.Conv2D(width, kernel, strides=strides, padding="same", name="conv"))
    x = layers.Dropout(dropout[0])(x)
    for i in range(1, blocks + 1):
        x = separable(x, width, 1, f"block{i}")
    x = layers.Dropout(dropout[1])(x)
    return keras.Model(inputs, classifier(x, classes), name="ds_cnn")


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
    first = layers.Conv2D(scaled(32, alpha), 3, strides=strides, padding="same", kernel_initializer=he, name="conv")
    x = normalized(inputs, first)
    for i, (width, step) in enumerate(_MOBILENET_V1[:blocks], start=1):
        x = separable(x, scaled(width, alpha), step, f"block{i}", kernel_initializer=he)
    return keras.Model(inputs, classifier(x, classes), name="mobilenet_v1")


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
    x = normalized(inputs, conv(width, 3, 1, "conv"))
    for i, strides in enumerate((1, 2, 2), start=1):
        filters = width * 2 ** (i - 1)
        shortcut = conv(filters, 1, strides, f"stack{i}_shortcut")(x) if strides > 1 else x
        x = residual(x, shortcut, filters, strides, f"stack{i}")
    return keras.Model(inputs, classifier(x, classes, kernel_initializer="he_normal"), name="resnet8")


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
        x = normalized(x, layers.Dense(units, name=f"dense{i}"))
    return keras.Model(inputs, layers.Dense(features, name="output")(x), name="fc_autoencoder")
