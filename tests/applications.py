"""Networks that people have: keras.applications and the zoo, with weights as training could have left them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tfmcu_prune import zoo
from tfmcu_prune.graph import read

CLASSES = 5


@dataclass(frozen=True)
class Case:
    """A network to test on.

    Args:
        name: Its name.
        build: Makes it; it returns logits or softmax.
        simple: Made only of convolutions, dense, normalization of batches, sums, products, concatenations and pooling,
            so that nearly all channels can be pruned.
        convertible: TensorFlow Lite Micro has all its operators.
    """

    name: str
    build: Callable[[], keras.Model]
    simple: bool = True
    convertible: bool = True


def _application(name: str, size: int = 32, simple: bool = True, convertible: bool = True, **settings: Any) -> Case:
    def build() -> keras.Model:
        constructor = getattr(keras.applications, name)
        shape = (size, size, 3)
        return constructor(weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None, **settings)

    return Case(name, build, simple, convertible)


def _zoo(name: str, *shape: int, **settings: Any) -> Case:
    return Case(name, lambda: getattr(zoo, name)(shape, CLASSES, **settings))


APPLICATIONS = (
    _application("VGG16"),
    _application("ResNet50"),
    _application("ResNet50V2"),
    _application("MobileNet", alpha=0.5),
    _application("MobileNetV2"),
    _application("MobileNetV3Small"),
    _application("MobileNetV3Large"),
    _application("EfficientNetB0"),
    _application("EfficientNetV2B0"),
    _application("DenseNet121"),
    _application("InceptionV3", size=75),
    _application("Xception", size=71),
    _application("NASNetMobile"),
    _application("ConvNeXtTiny", simple=False, convertible=False),
)
ZOO = (
    _zoo("ds_cnn", 25, 10, 1),
    _zoo("mobilenet_v1", 32, 32, 3),
    _zoo("resnet8", 16, 16, 3),
    Case("fc_autoencoder", zoo.fc_autoencoder),
    _zoo("vgg_small", 16, 16, 1),
    _zoo("vgg16", 32, 32, 3, alpha=0.25),
    _zoo("resnet20", 16, 16, 3),
    _zoo("mobilenet_v2", 32, 32, 3, alpha=0.35),
    _zoo("mcunet", 32, 32, 3, strides=1),
    _zoo("unet", 16, 16, 2, width=8, depth=2),
    _zoo("resnet1d", 32, 4, width=16),
    _zoo("tcn", 32, 4, width=12),
)


def randomize_scaled(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight a value that training could have given it, at scales that deep networks bear."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "alpha"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name in ("bias", "beta"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif "kernel" in name and len(weight.shape) > 1:
            weight.assign(weight + 0.1 * keras.ops.std(weight) * rng.normal(0, 1, weight.shape))
    return model


def calibrate(model: keras.Model, inputs: Any, share: float = 1.0) -> None:
    """Bring the activations of a network of which `share` of the channels is left into range, layer by layer.

    The statistics of every BatchNormalization become those of `inputs`, with one variance for all its channels, since
    dividing by that of a dead channel would make the network chaotic; without any, the kernels make up for what the
    rectification and the mask take.
    """
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    noise = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    before = [layer.momentum for layer in norms], [layer.rate for layer in noise]
    _set(norms, "momentum", [0.0] * len(norms))
    _set(noise, "rate", [0.0] * len(noise))
    model(inputs, training=True)
    _set(norms, "momentum", before[0])
    _set(noise, "rate", before[1])
    for layer in norms:
        layer.moving_variance.assign(keras.ops.full_like(layer.moving_variance, keras.ops.mean(layer.moving_variance)))
    if not norms:
        for weight in model.weights:
            if weight.path.endswith("kernel"):
                weight.assign(weight * np.sqrt(2 / share))


def _set(changed: list[Any], name: str, values: list[float]) -> None:
    for layer, value in zip(changed, values, strict=True):
        setattr(layer, name, value)


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulates of one inference, counted from the shapes of the layers' weights and outputs."""
    return sum(_macs(call.layer, call.shapes[0]) for call in read(model).calls)


def _macs(layer: Any, shape: tuple[int | None, ...]) -> int:
    outputs = int(np.prod(shape[1:]))
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose)):
        # Every input element meets every filter once; without overlap at the borders that is:
        return int(np.prod(layer.input.shape[1:])) * layer.filters * int(np.prod(layer.kernel_size))
    if isinstance(layer, (layers.SeparableConv1D, layers.SeparableConv2D)):
        depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
        places = outputs // layer.filters
        return places * int(np.prod(depthwise)) + places * int(np.prod(pointwise))
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        return outputs * int(np.prod(layer.kernel_size))
    if isinstance(layer, (layers.Conv1D, layers.Conv2D)):
        return outputs * int(np.prod(layer.kernel.shape[:-1]))
    if isinstance(layer, layers.Dense):
        return outputs * int(layer.kernel.shape[0])
    return 0


def widths(model: keras.Model) -> dict[str, int]:
    """Output channels of every layer that makes channels and is not the model's output, by name."""
    outputs = read(model).output_ids()
    made = {}
    for call in read(model).calls:
        width = getattr(call.layer, "filters", getattr(call.layer, "units", None))
        if width is not None and call.outputs[0] not in outputs:
            made[call.name] = width
    return made
