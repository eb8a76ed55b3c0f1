"""What a rule says: labels on the outputs of a call, along the axes of its weights and in its configuration."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tfmcu_prune.graph import Call

Array = np.ndarray
Axes = tuple[Array | None, ...]


def count(kept: Array) -> int:
    """Return how many channels are kept."""
    return int(kept.sum())


def kept_shape(kept: Array) -> tuple[int, ...]:
    """Return the shape that is left of a tensor whose channels stand along one axis."""
    shape: list[int] = []
    for axis in range(kept.ndim):
        others = tuple(i for i in range(kept.ndim) if i != axis)
        shape.append(int(kept.any(axis=others).sum()))
    return tuple(shape)


@dataclass(frozen=True)
class Size:
    """An entry of a layer's configuration, or an argument of its call, that depends on which channels are kept.

    Args:
        labels: The channels it depends on.
        of: bool array shaped as `labels`, True = kept -> the value in the stripped model.
    """

    labels: Array
    of: Callable[[Array], Any] = count


@dataclass(frozen=True)
class Flow:
    """What one call of a layer does to channels.

    Args:
        output: Labels of the output, shaped as it is without the batch axis; a tuple where there are several.
        weights: Attribute of each weight that has channel axes (`"kernel"`, `"cell.kernel"`) -> the labels along each
            of its axes (`None` for an axis that is not cut). `strip` slices these.
        reads: Attribute of a weight -> its axis along which the layer mixes its input channels. The gates act here.
        sizes: Entry of the layer's configuration (`"filters"`, `"layer.units"` for that of a wrapped layer) -> what
            it becomes in the stripped model.
        args: Position of an argument of the call -> what it becomes in the stripped model.
    """

    output: Array | tuple[Array, ...]
    weights: Mapping[str, Axes] = field(default_factory=dict)
    reads: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    args: Mapping[int, Size] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[Array, ...]:
        """The labels of every output."""
        return self.output if isinstance(self.output, tuple) else (self.output,)


class Labels(Protocol):
    """What a rule may do to labels."""

    def new(self, count: int) -> Array:
        """Return `count` fresh labels: channels that this layer creates."""

    def tie(self, a: Array, b: Array) -> None:
        """Keep or remove the channels of `a` and `b` (same shape) together."""

    def fix(self, a: Array, why: str) -> None:
        """Keep these channels for good."""


Rule = Callable[[Call, Sequence[Array], Labels], Flow]


def weight_of(layer: Any, name: str) -> Any:
    """Return the weight that a `Flow` calls `name`."""
    return operator.attrgetter(name)(layer)


def spread(row: Array, shape: Sequence[int]) -> Array:
    """Return one row of channel labels, shape (channels,), at every place of `shape`."""
    return np.broadcast_to(row, tuple(shape))


def first_row(a: Array) -> Array:
    """Return the labels along the channel axis at the first place, shape (channels,)."""
    return a[(0,) * (a.ndim - 1)]


def is_uniform(a: Array) -> bool:
    """Whether it is one row of labels seen at every place (made by `spread`)."""
    return a.ndim > 1 and not any(a.strides[:-1])


def channel_row(a: Array, labels: Labels, call: Call) -> Array:
    """Return the labels along the last axis, shape (channels,); where places differ, all are fixed."""
    first = first_row(a)
    if not is_uniform(a) and not np.array_equal(a, spread(first, a.shape)):
        labels.fix(a, f"{call.name} reads channels that differ from place to place")
    return first


def output_shape(call: Call, index: int = 0) -> tuple[int, ...]:
    """Return the shape of an output of a call without the batch axis; () for one that nobody reads."""
    return tuple(int(size or 0) for size in (call.shapes[index] or ())[1:])


def varying_axes(a: Array) -> list[int]:
    """Return the axes along which labels differ."""
    if is_uniform(a):
        return [a.ndim - 1]
    return [axis for axis in range(a.ndim) if not (a == np.take(a, [0], axis)).all()]


def rectangular(a: Array, labels: Labels) -> Array:
    """Return `a` with its channels along one axis alone, so that what a mask leaves is an array again.

    Where labels differ along several axes the one with the most channels is the channel axis, and what stands at one
    index of it is tied: after (height, width, groups x c) -> (height, width, groups, c), for example, channel k of
    every group goes or stays together.
    """
    if a.ndim < 2 or is_uniform(a):
        return a
    axes = varying_axes(a)
    if len(axes) > 1:
        distinct = {axis: len(np.unique(np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1), axis=0)) for axis in axes}
        channel = max(axes, key=lambda axis: (distinct[axis], axis))
    else:
        channel = axes[0] if axes else a.ndim - 1
    places = np.moveaxis(a, channel, -1).reshape(-1, a.shape[channel])
    if len(axes) > 1:
        for place in np.unique(places, axis=0):
            labels.tie(places[0], place)
    row = places[0].reshape([-1 if axis == channel else 1 for axis in range(a.ndim)])
    return np.broadcast_to(row, a.shape)


def keep(call: Call, inputs: Sequence[Array], labels: Labels, why: str = "") -> Flow:
    """Keep every channel that a call reads or makes: what a layer without a better rule does."""
    why = why or f"{call.name} ({type(call.layer).__name__}) mixes channels"
    for a in inputs:
        labels.fix(a, why)
    outputs = []
    for index in range(len(call.outputs)):
        shape = output_shape(call, index)
        row = labels.new(shape[-1] if shape else 1)
        labels.fix(row, why)
        outputs.append(spread(row, shape) if shape else row.reshape(()))
    return Flow(tuple(outputs))


def same(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Elementwise: nothing moves."""
    return Flow(inputs[0])


def windowed(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Pooling, padding, cropping, up-sampling: the channels stay, the places change."""
    return Flow(spread(channel_row(inputs[0], labels, call), output_shape(call)))


def softmax_over(axis: int | Sequence[int], call: Call, a: Array, labels: Labels) -> None:
    """Fix the channels of `a` if `axis` (counted without the batch axis where negative) runs over them."""
    axes = {i % (a.ndim + 1) - 1 for i in ([axis] if isinstance(axis, int) else axis)}
    if axes & set(varying_axes(a)):
        labels.fix(a, f"softmax over channels in {call.name}")


def merge(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Add, multiply ...: channel c of one operand meets channel c of the others, so they go together."""
    shape = np.broadcast_shapes(*(a.shape for a in inputs))
    wide = []
    for a in inputs:
        lined = a.reshape((1,) * (len(shape) - a.ndim) + a.shape)
        axis = varying_axes(lined)
        if lined.shape == shape or (axis and all(lined.shape[i] == shape[i] for i in axis)):
            wide.append(np.broadcast_to(lined, shape))
    full = [a for a in wide if varying_axes(a)] or wide
    for a in inputs:
        if not varying_axes(a) and full and varying_axes(full[0]):
            labels.fix(a, f"{call.name} spreads one channel over others")
    for other in full[1:]:
        _tie_all(full[0], other, labels)
    return Flow(full[0] if full else np.broadcast_to(inputs[0], shape))


def _tie_all(a: Array, b: Array, labels: Labels) -> None:
    if is_uniform(a) and is_uniform(b):
        labels.tie(first_row(a), first_row(b))
    elif a is not b:
        pairs = np.unique(np.stack([a.reshape(-1), b.reshape(-1)]), axis=1)
        labels.tie(pairs[0], pairs[1])
