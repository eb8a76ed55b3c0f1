"""The one table of layer rules: how each Keras layer moves, creates, mixes and stores channels.

A rule runs a layer's *data movement* on labels instead of numbers: every element of a tensor carries an integer that
names its channel, so concatenation is `np.concatenate`, flattening is a reshape and an addition is a union.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from keras import layers

from tfmcu_prune.errors import UnsupportedLayer

Array = np.ndarray
Axes = tuple[Array | None, ...]


@dataclass(frozen=True)
class Flow:
    """What one call of a layer does to channels.

    Args:
        output: Labels of the output, shaped as it is without the batch axis; a tuple where there are several.
        weights: Attribute of each weight that has channel axes -> the labels along each of its axes (`None` for an
            axis that is not cut). `strip` slices these.
        reads: Attribute of a weight -> its axis along which the layer mixes its input channels. The gates act here.
        sizes: Entry of the layer's configuration -> the labels whose kept shape it becomes in the stripped model.
    """

    output: Array | tuple[Array, ...]
    weights: Mapping[str, Axes] = field(default_factory=dict)
    reads: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Array] = field(default_factory=dict)


class Labels(Protocol):
    """What a rule may do to labels."""

    def new(self, count: int) -> Array:
        """Return `count` fresh labels: channels that this layer creates."""

    def tie(self, a: Array, b: Array) -> None:
        """Keep or remove the channels of `a` and `b` (same shape) together."""

    def fix(self, a: Array, why: str) -> None:
        """Keep these channels for good."""


Rule = Callable[[Any, Sequence[Array], Labels], Flow]


def spread(row: Array, shape: Sequence[int]) -> Array:
    """Return one row of channel labels, shape (channels,), at every place of `shape`."""
    return np.broadcast_to(row, tuple(shape))


def first_row(a: Array) -> Array:
    """Return the labels along the channel axis at the first place, shape (channels,)."""
    return a[(0,) * (a.ndim - 1)]


def is_uniform(a: Array) -> bool:
    """Whether it is one row of labels seen at every place (made by `spread`)."""
    return a.ndim > 1 and not any(a.strides[:-1])


def channel_row(a: Array, labels: Labels, layer: Any) -> Array:
    """Return the labels along the channel axis, shape (channels,); where places differ, all are fixed."""
    first = first_row(a)
    if not is_uniform(a) and not np.array_equal(a, spread(first, a.shape)):
        labels.fix(a, f"{layer.name} reads channels that differ from place to place")
    return first


def same(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Elementwise: nothing moves."""
    if "softmax" in _activation(layer):
        labels.fix(inputs[0], f"softmax over channels in {layer.name}")
    return Flow(inputs[0])


def _activation(layer: Any) -> str:
    if isinstance(layer, layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _shape_after(layer: Any, a: Array) -> tuple[int, ...]:
    return tuple(layer.compute_output_shape((None, *a.shape))[1:])


def windowed(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Pooling, padding, cropping, up-sampling: the channels stay, the places change."""
    row = channel_row(inputs[0], labels, layer)
    shape = _shape_after(layer, inputs[0])
    return Flow(spread(row, shape))


def batch_norm(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, inputs[0].ndim):
        raise UnsupportedLayer(f"{layer.name} normalizes axis {axis}; expected the channel axis, axis=-1.")
    row = channel_row(inputs[0], labels, layer)
    named = [("gamma", layer.scale), ("beta", layer.center), ("moving_mean", True), ("moving_variance", True)]
    return Flow(inputs[0], {name: (row,) for name, there in named if there})


def dense(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    row, out = channel_row(inputs[0], labels, layer), labels.new(layer.units)
    output = spread(out, (*inputs[0].shape[:-1], layer.units))
    return _mixing(layer, labels, output, {"kernel": (row, out)}, {"kernel": 0}, {"units": out})


def conv(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    row, out = channel_row(inputs[0], labels, layer), labels.new(layer.filters)
    groups = layer.groups
    if groups > 1:  # channel k of every group goes or stays with channel k of the others
        row, each = row.reshape(groups, -1), out.reshape(groups, -1)
        for g in range(1, groups):
            labels.tie(row[0], row[g])
            labels.tie(each[0], each[g])
        row = row[0]
    output = spread(out, _shape_after(layer, inputs[0]))
    kernel = (*[None] * layer.rank, row, out)
    return _mixing(layer, labels, output, {"kernel": kernel}, {"kernel": layer.rank}, {"filters": out})


def _mixing(
    layer: Any, labels: Labels, output: Array, weights: dict[str, Axes], reads: dict[str, int], sizes: dict[str, Array]
) -> Flow:
    out = first_row(output)
    if layer.use_bias:
        weights = {**weights, "bias": (out,)}
    if "softmax" in _activation(layer):
        labels.fix(out, f"softmax over channels in {layer.name}")
    return Flow(output, weights, reads, sizes)


def depthwise(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    row = channel_row(inputs[0], labels, layer)
    out = np.repeat(row, layer.depth_multiplier)
    weights: dict[str, Axes] = {"kernel": (*[None] * layer.rank, row, None)}
    if layer.use_bias:
        weights["bias"] = (out,)
    return Flow(spread(out, _shape_after(layer, inputs[0])), weights)


def separable(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    row, out = channel_row(inputs[0], labels, layer), labels.new(layer.filters)
    output, none = spread(out, _shape_after(layer, inputs[0])), [None] * layer.rank
    weights: dict[str, Axes] = {
        "depthwise_kernel": (*none, row, None),
        "pointwise_kernel": (*none, np.repeat(row, layer.depth_multiplier), out),
    }
    return _mixing(layer, labels, output, weights, {"pointwise_kernel": layer.rank}, {"filters": out})


def global_pool(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    row = channel_row(inputs[0], labels, layer)
    return Flow(spread(row, _shape_after(layer, inputs[0])))


def reshape(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    output = inputs[0].reshape(_shape_after(layer, inputs[0]))
    if isinstance(layer, layers.Flatten):
        return Flow(output)
    row = channel_row(output, labels, layer)
    return Flow(output, sizes={"target_shape": spread(row, output.shape)})


def concatenate(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    axis = layer.axis if layer.axis < 0 else layer.axis - 1
    output = np.concatenate(inputs, axis=axis)
    if axis not in (-1, output.ndim - 1):
        for other in inputs[1:]:
            labels.tie(channel_row(inputs[0], labels, layer), channel_row(other, labels, layer))
    return Flow(output)


def merge(layer: Any, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Add, multiply ...: channel c of one operand meets channel c of the others, so they go together."""
    rank = max(a.ndim for a in inputs)
    channels = max(a.shape[-1] for a in inputs)
    aligned = [a.reshape((1,) * (rank - a.ndim) + a.shape) for a in inputs]
    wide = [a for a in aligned if a.shape[-1] == channels]
    for a in aligned:
        if a.shape[-1] != channels:
            labels.fix(a, f"{layer.name} spreads one channel over {channels}")
    rows = [channel_row(a, labels, layer) for a in wide]
    for row in rows[1:]:
        labels.tie(rows[0], row)
    shape = np.broadcast_shapes(*(a.shape for a in aligned))
    return Flow(wide[0] if wide[0].shape == shape else spread(rows[0], shape))


TABLE: dict[type, Rule] = {
    **dict.fromkeys(
        [layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax, layers.Dropout]
        + [layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout]
        + [layers.ActivityRegularization, layers.Rescaling, layers.Identity],
        same,
    ),
    layers.BatchNormalization: batch_norm,
    layers.Dense: dense,
    **dict.fromkeys([layers.Conv1D, layers.Conv2D], conv),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], depthwise),
    **dict.fromkeys([layers.SeparableConv1D, layers.SeparableConv2D], separable),
    **dict.fromkeys(
        [layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D]
        + [layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D]
        + [layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D]
        + [layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D],
        windowed,
    ),
    **dict.fromkeys([layers.Flatten, layers.Reshape], reshape),
    layers.Concatenate: concatenate,
    **dict.fromkeys(
        [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum], merge
    ),
}


def rule_for(layer: Any) -> Rule:
    """Return the rule of a layer.

    Raises:
        UnsupportedLayer: No rule, or a data format other than channels_last.
    """
    rule = TABLE.get(type(layer))
    if rule is None:
        known = ", ".join(sorted(cls.__name__ for cls in TABLE))
        raise UnsupportedLayer(
            f"No rule for the layer {layer.name!r} of type {type(layer).__name__}, so its channels cannot be pruned "
            f"safely. Expected one of: {known}. Replace the layer, or build the model without it."
        )
    if getattr(layer, "data_format", None) == "channels_first":
        raise UnsupportedLayer(
            f"The layer {layer.name!r} has data_format='channels_first'; expected 'channels_last' "
            "(keras.config.set_image_data_format('channels_last') before building the model)."
        )
    return rule
