"""Networks that read small images, as CIFAR-10's, and U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from tfmcu_prune.zoo.blocks import classifier, conv, inverted_residual, norm, normalized, residual, scaled

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width, convolutions
# expansion, width, blocks, strides of the first block
_MOBILENET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
# kernel, expansion, width, strides
_MCUNET = (
    *((3, 1, 8, 1), (7, 3, 16, 2), (3, 5, 16, 1), (7, 4, 24, 2), (5, 3, 24, 1), (3, 5, 24, 1)),
    *((5, 5, 40, 2), (7, 3, 40, 1), (7, 4, 48, 1), (3, 5, 48, 1), (7, 5, 96, 2), (5, 4, 96, 1)),
)


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
        x = normalized(x, layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}"))
        if i in (2, 4):
            x = layers.MaxPooling2D(name=f"pool{i // 2}")(x)
    return keras.Model(inputs, classifier(x, classes), name="vgg_small")


def vgg16(input_shape: Sequence[int], classes: int, *, alpha: float = 1.0) -> keras.Model:
    """Build VGG-16 for small images: thirteen 3x3 convolutions with batch normalization in five stages, one dense.

    Args:
        input_shape: (height, width, channels); 32 x 32 becomes 1 x 1 in the end.
        classes: Number of classes.
        alpha: Factor of all widths (64 to 512); at least 8 channels stay.

    Returns:
        A functional model.

    Example:
        >>> vgg16((32, 32, 3), 10).count_params()
        14732490

    Source:
        Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D; one dense layer and batch normalization for
        CIFAR as in Liu et al. 2017, arXiv:1708.06519.
    """
    inputs = x = keras.Input(tuple(input_shape))
    for stage, (width, count) in enumerate(_VGG16, start=1):
        for i in range(1, count + 1):
            x = normalized(x, conv(scaled(width, alpha), 3, 1, f"stage{stage}_conv{i}", use_bias=False))
        x = layers.MaxPooling2D(padding="same", name=f"stage{stage}_pool")(x)
    return keras.Model(inputs, classifier(x, classes), name="vgg16")


def resnet20(input_shape: Sequence[int], classes: int, *, width: int = 16, blocks: int = 3) -> keras.Model:
    """Build ResNet-20: a convolution, then three stages of residual blocks, of one, two and four times its width.

    Where the width changes the shortcut is a 1x1 convolution with batch normalization (option B of the paper).

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        width: Channels of the first stage.
        blocks: Residual blocks a stage; n of them make ResNet-(6n + 2).

    Returns:
        A functional model.

    Example:
        >>> resnet20((32, 32, 3), 10).count_params()
        274042

    Source:
        He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385, 4.2.
    """
    inputs = keras.Input(tuple(input_shape))
    x = normalized(inputs, conv(width, 3, 1, "conv", use_bias=False))
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            filters, name = width * 2 ** (stage - 1), f"stage{stage}_block{block}"
            strides, shortcut = 1, x
            if block == 1 and stage > 1:
                strides = 2
                shortcut = normalized(x, conv(filters, 1, 2, f"{name}_shortcut", use_bias=False), activation=None)
            x = residual(x, shortcut, filters, strides, name, use_bias=False)
    return keras.Model(inputs, classifier(x, classes, kernel_initializer="he_normal"), name=f"resnet{6 * blocks + 2}")


def mobilenet_v2(input_shape: Sequence[int], classes: int, *, alpha: float = 1.0, strides: int = 1) -> keras.Model:
    """Build MobileNetV2 for small images: seventeen inverted residuals, with the first two strides left out.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        alpha: Factor of all widths; they are rounded to multiples of 8, and the last, 1280, never narrows.
        strides: Strides of the first convolution.

    Returns:
        A functional model; its weights are as many as those of `keras.applications.MobileNetV2`.

    Example:
        >>> mobilenet_v2((32, 32, 3), 10, alpha=0.35).count_params()
        423018

    Source:
        Sandler et al. 2018, arXiv:1801.04381, table 2; the rounding is that of
        tensorflow/models research/slim/nets/mobilenet/mobilenet.py.
    """
    inputs = keras.Input(tuple(input_shape))
    first = conv(_multiple_of_8(32 * alpha), 3, strides, "conv", use_bias=False)
    x = normalized(inputs, first, activation="relu6")
    number = 0
    for expansion, width, count, first_strides in _MOBILENET_V2:
        for i in range(count):
            number += 1
            x = inverted_residual(
                x,
                _multiple_of_8(width * alpha),
                f"block{number}",
                kernel=3,
                expansion=expansion,
                strides=first_strides if i == 0 else 1,
            )
    last = conv(_multiple_of_8(1280 * max(alpha, 1.0)), 1, 1, "last", use_bias=False)
    return keras.Model(inputs, classifier(normalized(x, last, activation="relu6"), classes), name="mobilenet_v2")


def mcunet(input_shape: Sequence[int], classes: int, *, alpha: float = 1.0, strides: int = 2) -> keras.Model:
    """Build a network like those that MCUNet finds: inverted residuals with kernels of 3, 5 and 7.

    Args:
        input_shape: (height, width, channels).
        classes: Number of classes.
        alpha: Factor of all widths (8 to 96); at least 8 channels stay.
        strides: Strides of the first convolution; 1 for images of about 32 x 32.

    Returns:
        A functional model.

    Example:
        >>> mcunet((48, 48, 3), 2).count_params()
        241690

    Source:
        Lin et al. 2020, MCUNet, arXiv:2007.10319: the blocks of its search space; the choice among them is ours.
    """
    inputs = keras.Input(tuple(input_shape))
    x = normalized(inputs, conv(scaled(16, alpha), 3, strides, "conv", use_bias=False), activation="relu6")
    for i, (kernel, expansion, width, step) in enumerate(_MCUNET, start=1):
        x = inverted_residual(x, scaled(width, alpha), f"block{i}", kernel=kernel, expansion=expansion, strides=step)
    return keras.Model(inputs, classifier(x, classes), name="mcunet")


def unet(input_shape: Sequence[int], classes: int, *, width: int = 16, depth: int = 3) -> keras.Model:
    """Build U-Net: an encoder, a decoder of transposed convolutions, and maps handed across at each resolution.

    Args:
        input_shape: (height, width, channels); height and width are multiples of 2 ** `depth`.
        classes: Number of classes of a pixel.
        width: Channels at full resolution; they double at each of the lower ones.
        depth: How often the resolution is halved.

    Returns:
        A functional model that returns probabilities of shape (batch, height, width, classes).

    Raises:
        ValueError: A height or width that cannot be halved `depth` times.

    Example:
        >>> unet((32, 32, 1), 2, depth=1).output_shape
        (None, 32, 32, 2)

    Source:
        Ronneberger et al. 2015, arXiv:1505.04597; padded convolutions with batch normalization here.
    """
    if any(size % 2**depth for size in input_shape[:2]):
        raise ValueError(
            f"unet halves height and width {depth} times: expected multiples of {2**depth}. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    inputs = x = keras.Input(tuple(input_shape))
    across = []
    for level in range(depth):
        x = _double(x, width * 2**level, f"down{level}")
        across.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = _double(x, width * 2**depth, "bottom")
    for level in reversed(range(depth)):
        up = layers.Conv2DTranspose(width * 2**level, 2, strides=2, use_bias=False, name=f"up{level}")
        x = layers.Activation("relu", name=f"up{level}_relu")(norm(up(x), f"up{level}_bn"))
        x = layers.Concatenate(name=f"up{level}_concat")([across[level], x])
        x = _double(x, width * 2**level, f"up{level}")
    return keras.Model(inputs, layers.Conv2D(classes, 1, activation="softmax", name="classes")(x), name="unet")


def _double(x: Any, filters: int, name: str) -> Any:
    x = normalized(x, conv(filters, 3, 1, f"{name}_conv1", use_bias=False))
    return normalized(x, conv(filters, 3, 1, f"{name}_conv2", use_bias=False))


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % below."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
