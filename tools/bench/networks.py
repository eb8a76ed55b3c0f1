"""Networks at any group sizes, and budgets as shares of what a network costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

import tfmcu_prune
from tfmcu_prune import Budget, zoo
from tfmcu_prune.allocation import choose, uniform
from tfmcu_prune.budget import Resources
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.fitting import converted_cost
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import RESOURCES, evaluate, floor, over
from tfmcu_prune.shortening import as_model, ever_shorter
from tfmcu_prune.zoo.blocks import conv, normalized

VGG7 = (48, 96, 96, 192, 192, 256, 256)


def vgg7(input_shape: Sequence[int], classes: int, *, widths: Sequence[int] = VGG7) -> keras.Model:
    """Build a VGG of seven convolutions for 32 x 32 images, 1.7 M weights, of the class of ResNet-9."""
    inputs = x = keras.Input(tuple(input_shape))
    for i, width in enumerate(widths, start=1):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"conv{i}_bn")(x)
        x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
        if i in (2, 4, 6):
            x = keras.layers.MaxPooling2D(name=f"pool{i // 2}")(x)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax", name="classifier")(x), name="vgg7")


def vgg7_half(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Build `vgg7` at half its widths: a quarter of the work, for full-size CIFAR-10 on a CPU."""
    return vgg7(input_shape, classes, widths=[width // 2 for width in VGG7])


def resnet11(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Build ResNet-9 of the speed recipes for 32 x 32 images with a block in every stage, 0.7 M weights."""
    inputs = keras.Input(tuple(input_shape))
    x = normalized(inputs, conv(48, 3, 1, "conv", use_bias=False))
    for stage, width in enumerate((64, 96, 128), start=1):
        name = f"stage{stage}"
        x = normalized(x, conv(width, 3, 1, f"{name}_conv", use_bias=False))
        x = keras.layers.MaxPooling2D(name=f"{name}_pool")(x)
        inner = normalized(x, conv(width, 3, 1, f"{name}_inner1", use_bias=False))
        inner = normalized(inner, conv(width, 3, 1, f"{name}_inner2", use_bias=False))
        x = keras.layers.Add(name=f"{name}_add")([x, inner])
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax", name="classifier")(x), name="resnet11")


def mobilenet_v1_32(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Build MobileNet v1 at a quarter of its widths for 32 x 32 images: its first convolution keeps the resolution."""
    return zoo.mobilenet_v1(input_shape, classes, strides=1)


OWN = (vgg7, vgg7_half, resnet11, mobilenet_v1_32)
NETWORKS: dict[str, Callable[..., keras.Model]] = {**zoo.NETWORKS, **{build.__name__: build for build in OWN}}

LEVELS: dict[str, dict[str, float]] = {
    "loose": {"arena": 0.5, "flash": 0.4, "macs": 0.4},
    "tight": {"arena": 0.3, "flash": 0.13, "macs": 0.13},
    "extreme": {"arena": 0.12, "flash": 0.03, "macs": 0.03},
}


def resized(model: keras.Model, sizes: Sequence[int]) -> keras.Model:
    """Return a network like `model` with `sizes` channels a group and new random weights."""
    gated = tfmcu_prune.prunable(model)
    forms = resource_model(channel_groups(model))
    mask = choose(forms, np.zeros(sum(group.size for group in forms.groups)), np.asarray(sizes))
    tfmcu_prune.set_mask(gated, mask)
    return keras.models.clone_model(tfmcu_prune.strip(gated))


def shorter(model: keras.Model, budget: Budget, parts: int) -> keras.Model:
    """Return a network without as many of its parts, those that `tfmcu_prune.shorten` would take first."""
    ways = ever_shorter(channel_groups(model), budget)
    _, chosen = next(itertools.islice(ways, parts, None))
    return as_model(chosen)


def rates(model: keras.Model) -> dict[str, float]:
    """Return the rate of each dropout layer of a model by the layer's name."""
    return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}


def set_rates(model: keras.Model, changed: Mapping[str, float]) -> None:
    """Give dropout layers of a model, not compiled, other rates."""
    for name, rate in changed.items():
        model.get_layer(name).rate = rate


def sizes_of(dense: keras.Model, mask: np.ndarray) -> list[int]:
    """Return the group sizes that a mask leaves of a network."""
    return [int(mask[group.channels].sum()) for group in channel_groups(dense).groups]


def widest(model: keras.Model, budget: Budget) -> keras.Model:
    """Return the uniformly thinner network of the largest width multiplier whose .tflite fits the budget."""
    forms = resource_model(channel_groups(model))
    widths = {tuple(uniform(forms, share / 1000)) for share in range(1001)}  # every width there is
    return first_fitting(model, sorted(widths, reverse=True), budget)[1]


def first_fitting(model: keras.Model, candidates: Sequence[Sequence[int]], budget: Budget) -> tuple[int, keras.Model]:
    """Return which of some group sizes, from the largest to the smallest, is the first that fits, and the network.

    Raises:
        BudgetError: None fits.
    """
    forms = resource_model(channel_groups(model))

    def fits(index: int) -> bool:
        return not over(converted_cost(resized(model, candidates[index])), budget)

    foreseen = [not over(evaluate(forms, np.asarray(sizes)), budget) for sizes in candidates]
    index = (*foreseen[:-1], True).index(True)  # by the closed form, which is nearly right
    while index < len(candidates) and not fits(index):
        index += 1
    if index == len(candidates):
        raise tfmcu_prune.BudgetError(f"None of {len(candidates)} smaller networks fits {budget}.")
    while index > 0 and fits(index - 1):
        index -= 1
    return index, resized(model, candidates[index])


def budget_at(model: keras.Model, level: str) -> Budget:
    """Return the budget of a level: a key of LEVELS, or limits as "arena=32KiB+flash=64KiB".

    A named one lies between what the network costs and the floor under it, with every group at one channel:
    B = floor + share (dense - floor), all of the .tflite: so every budget can be met, and shares compare over networks
    of different overhead.
    """
    if level not in LEVELS:
        return limits(level)
    forms = resource_model(channel_groups(model))
    dense, least = converted_cost(keras.models.clone_model(model)), floor(forms)
    shares = LEVELS[level]
    return Budget(**{k: _between(dense, least, k, shares[k]) for k in RESOURCES})


def limits(text: str) -> Budget:
    """Return the budget that a level such as "arena=32KiB+flash=64KiB" writes out.

    Raises:
        ValueError: It names something else than a resource, or a limit cannot be read.
    """
    parts = dict(part.partition("=")[::2] for part in text.split("+"))
    if unknown := parts.keys() - set(RESOURCES):
        raise ValueError(
            f"Unknown level: expected one of {', '.join(LEVELS)}, or limits of {', '.join(RESOURCES)} as "
            f"arena=32KiB+flash=64KiB. Received: {text!r}, where {', '.join(sorted(unknown))} is none of these"
        )
    return Budget(**parts)


def _between(dense: Resources, least: Resources, name: str, share: float) -> int:
    low, high = getattr(least, name), getattr(dense, name)
    return round(low + share * (high - low))
