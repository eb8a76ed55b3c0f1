"""Reference networks for microcontrollers, as plain Keras models with random weights.

The MLPerf Tiny ones follow the reference models of https://github.com/mlcommons/tiny (Apache-2.0) layer by layer and
end in softmax as those do. BatchNormalization has momentum 0.9 here, so that its statistics follow a network that is
pruned within a few epochs.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfmcu_prune.zoo.images import mcunet, mobilenet_v2, resnet20, unet, vgg16, vgg_small
from tfmcu_prune.zoo.signals import resnet1d, tcn
from tfmcu_prune.zoo.tiny import ds_cnn, fc_autoencoder, mobilenet_v1, resnet8

__all__ = [
    "NETWORKS",
    "SIGNAL_NETWORKS",
    "ds_cnn",
    "fc_autoencoder",
    "mcunet",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet1d",
    "resnet20",
    "resnet8",
    "tcn",
    "unet",
    "vgg16",
    "vgg_small",
]

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "ds_cnn": ds_cnn,
    "mcunet": mcunet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet20": resnet20,
    "resnet8": resnet8,
    "vgg16": vgg16,
    "vgg_small": vgg_small,
}
"""The classifiers of images by name; each is called with (input_shape, classes)."""

SIGNAL_NETWORKS: dict[str, Callable[..., keras.Model]] = {"resnet1d": resnet1d, "tcn": tcn}
"""The classifiers of signals by name; each is called with (input_shape, classes), the shape being (steps, channels)."""
