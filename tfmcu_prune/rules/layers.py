"""Rules of the layers that work on maps and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.graph import Call
from tfmcu_prune.rules.flow import (
    Array,
    Axes,
    Flow,
    Labels,
    Rule,
    Size,
    channel_row,
    first_row,
    keep,
    kept_shape,
    merge,
    output_shape,
    rectangular,
    same,
    softmax_over,
    spread,
    windowed,
)


def activation(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Elementwise but for softmax, which mixes along its axis."""
    name = activation_name(call.layer)
    if isinstance(call.layer, layers.Softmax) or "softmax" in name:
        softmax_over(getattr(call.layer, "axis", -1), call, inputs[0], labels)
    elif name in ("glu", "sparsemax"):
        return keep(call, inputs, labels)
    return same(call, inputs, labels)


def activation_name(layer: Any) -> str:
    """Return the name of a layer's activation function; "" where it has none."""
    return getattr(getattr(layer, "activation", None), "__name__", "")


def constants(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Elementwise with constants of its own, as at the input of a model: nothing moves and nothing goes."""
    labels.fix(inputs[0], f"{call.name} ({type(call.layer).__name__}) holds constants")
    return Flow(inputs[0])


def rescaling(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    scalars = np.ndim(call.layer.scale) == np.ndim(call.layer.offset) == 0
    return (same if scalars else constants)(call, inputs, labels)


def batch_norm(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, inputs[0].ndim):
        raise UnsupportedLayer(f"{call.name} normalizes axis {axis}; expected the channel axis, axis=-1.")
    row = channel_row(inputs[0], labels, call)
    named = [("gamma", layer.scale), ("beta", layer.center), ("moving_mean", True), ("moving_variance", True)]
    return Flow(inputs[0], {name: (row,) for name, there in named if there})


def group_norm(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Each channel by itself (as many groups as channels) can be cut; statistics over channels cannot."""
    layer, row = call.layer, first_row(inputs[0])
    if layer.groups not in (-1, len(row)) or layer.axis not in (-1, inputs[0].ndim):
        return _fixed_norm(call, inputs, labels)
    named = [("gamma", layer.scale), ("beta", layer.center)]
    return Flow(inputs[0], {name: (row,) for name, there in named if there}, sizes={"groups": Size(row)})


def _fixed_norm(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    labels.fix(inputs[0], f"{call.name} ({type(call.layer).__name__}) takes statistics over channels")
    return Flow(inputs[0])


def dense(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    row, out = channel_row(inputs[0], labels, call), labels.new(layer.units)
    output = spread(out, (*inputs[0].shape[:-1], layer.units))
    return mixing(call, labels, output, {"kernel": (row, out)}, {"kernel": 0}, {"units": Size(out)})


def conv(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    row, out = channel_row(inputs[0], labels, call), labels.new(layer.filters)
    output = spread(out, output_shape(call))
    none = [None] * layer.rank
    if layer.groups > 1 and layer.groups == len(row):  # a depthwise convolution by another name: channels stay apart
        labels.tie(np.repeat(row, layer.filters // layer.groups), out)
        weights: dict[str, Axes] = {"kernel": (*none, None, out)}
        return mixing(call, labels, output, weights, {}, {"filters": Size(out), "groups": Size(row)})
    if layer.groups > 1:  # channel k of every group goes or stays with channel k of the others
        row, each = row.reshape(layer.groups, -1), out.reshape(layer.groups, -1)
        for g in range(1, layer.groups):
            labels.tie(row[0], row[g])
            labels.tie(each[0], each[g])
        row = row[0]
    weights = {"kernel": (*none, row, out)}
    return mixing(call, labels, output, weights, {"kernel": layer.rank}, {"filters": Size(out)})


def conv_transpose(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    row, out = channel_row(inputs[0], labels, call), labels.new(layer.filters)
    weights: dict[str, Axes] = {"kernel": (*[None] * layer.rank, out, row)}
    output = spread(out, output_shape(call))
    return mixing(call, labels, output, weights, {"kernel": layer.rank + 1}, {"filters": Size(out)})


def mixing(
    call: Call, labels: Labels, output: Array, weights: dict[str, Axes], reads: dict[str, int], sizes: dict[str, Size]
) -> Flow:
    """The flow of a layer that ends in a bias and an activation over the channels it makes."""
    out = first_row(output)
    if call.layer.use_bias:
        weights = {**weights, "bias": (out,)}
    if "softmax" in activation_name(call.layer):
        labels.fix(out, f"softmax over channels in {call.name}")
    return Flow(output, weights, reads, sizes)


def depthwise(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    row = channel_row(inputs[0], labels, call)
    out = np.repeat(row, layer.depth_multiplier)
    weights: dict[str, Axes] = {"kernel": (*[None] * layer.rank, row, None)}
    return mixing(call, labels, spread(out, output_shape(call)), weights, {}, {})


def separable(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    layer = call.layer
    row, out = channel_row(inputs[0], labels, call), labels.new(layer.filters)
    output, none = spread(out, output_shape(call)), [None] * layer.rank
    weights: dict[str, Axes] = {
        "depthwise_kernel": (*none, row, None),
        "pointwise_kernel": (*none, np.repeat(row, layer.depth_multiplier), out),
    }
    return mixing(call, labels, output, weights, {"pointwise_kernel": layer.rank}, {"filters": Size(out)})


def prelu(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """A slope for each element of the axes that are not shared."""
    row, shared = channel_row(inputs[0], labels, call), call.layer.shared_axes or ()
    if inputs[0].ndim in shared:
        return Flow(inputs[0])
    return Flow(inputs[0], {"alpha": (*[None] * (inputs[0].ndim - 1), row)})


def layer_scale(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """A factor a channel."""
    return Flow(inputs[0], {"gamma": (channel_row(inputs[0], labels, call),)})


def embedding(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    out = labels.new(call.layer.output_dim)
    weights: dict[str, Axes] = {"embeddings": (None, out)}
    return Flow(spread(out, output_shape(call)), weights, sizes={"output_dim": Size(out)})


def reshape(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    output = rectangular(inputs[0].reshape(output_shape(call)), labels)
    sizes = {} if isinstance(call.layer, layers.Flatten) else {"target_shape": Size(output, kept_shape)}
    return Flow(output, sizes=sizes)


def permute(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    return Flow(np.transpose(inputs[0], [axis - 1 for axis in call.layer.dims]))


def repeat_vector(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    return Flow(spread(inputs[0], output_shape(call)))


def concatenate(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    axis = call.layer.axis
    return Flow(rectangular(np.concatenate(inputs, axis=axis if axis < 0 else axis - 1), labels))


def _layers(*names: str) -> list[type]:
    return [getattr(layers, name) for name in names]


def _each_rank(*names: str) -> list[type]:
    found = [getattr(layers, f"{name}{rank}D", None) for name in names for rank in (1, 2, 3)]
    return [cls for cls in found if cls is not None]


def is_augmentation(layer: Any) -> bool:
    """Whether a layer changes images while training alone."""
    return type(layer) in _AUGMENTATION


_AUGMENTATION = set(
    _layers(
        *("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
        *("RandomShear", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomColorDegeneration"),
        *("RandomErasing", "RandomSharpness", "RandomGaussianBlur", "RandomPosterization", "RandomInvert"),
        *("RandomGrayscale", "RandomPerspective", "RandomElasticTransform", "RandAugment", "AugMix"),
    )
)

LAYERS: dict[type, Rule] = {
    **dict.fromkeys(_layers("Activation", "Softmax"), activation),
    **dict.fromkeys(
        [
            *_layers("ReLU", "LeakyReLU", "ELU", "Dropout", "AlphaDropout", "GaussianNoise", "GaussianDropout"),
            *_layers("ActivityRegularization", "Identity"),
            *_each_rank("SpatialDropout"),
        ],
        same,
    ),
    **dict.fromkeys([*_layers("Normalization", "Masking"), *_AUGMENTATION], constants),
    layers.Rescaling: rescaling,
    layers.BatchNormalization: batch_norm,
    layers.GroupNormalization: group_norm,
    **dict.fromkeys(_layers("LayerNormalization", "RMSNormalization", "UnitNormalization"), _fixed_norm),
    layers.Dense: dense,
    **dict.fromkeys(_each_rank("Conv"), conv),
    **dict.fromkeys(_layers("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), conv_transpose),
    **dict.fromkeys(_each_rank("DepthwiseConv"), depthwise),
    **dict.fromkeys(_each_rank("SeparableConv"), separable),
    layers.PReLU: prelu,
    layers.Embedding: embedding,
    **dict.fromkeys(
        [
            *_each_rank("MaxPooling", "AveragePooling", "GlobalAveragePooling", "GlobalMaxPooling"),
            *_layers("Resizing", "CenterCrop", "RandomCrop"),
            *_each_rank("ZeroPadding", "Cropping", "UpSampling", "AdaptiveAveragePooling", "AdaptiveMaxPooling"),
        ],
        windowed,
    ),
    **dict.fromkeys(_layers("Flatten", "Reshape"), reshape),
    layers.Permute: permute,
    layers.RepeatVector: repeat_vector,
    layers.Concatenate: concatenate,
    **dict.fromkeys(_layers("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), merge),
    layers.Dot: keep,
}

UNEXPORTED: dict[str, Rule] = {"LayerScale": layer_scale, "StochasticDepth": same}
"""Layers of keras.applications that Keras does not export, by the name of their class."""
