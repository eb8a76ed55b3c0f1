"""Which channels a model has, which go together, and where each is stored: the channel graph."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.budget import NO_LIMITS, Limits
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import (
    Array,
    Flow,
    Size,
    find_rule,
    first_row,
    is_uniform,
    keep,
    rectangular,
    rule_for,
    spread,
)
from tfmcu_prune.tables import render


@dataclass(frozen=True)
class Group:
    """Channels that cost the same everywhere, so that only their number matters to the resources.

    Args:
        name: The first layer that creates them.
        layers: All layers that create or store them.
        channels: Their positions in the mask of the whole model, int64, shape (size,); -1 where they are fixed.
        width: How many there were before any were cut.
        minimum: How many of them stay at least.
        multiple: What their number is a multiple of where `PruneCallback` chooses it (or all of them stay).
        depth: How many layers that make them lie one behind the other: of a residual stream what begins it and each
            block behind that; else 1.
        why: Why they are fixed; "" where they are prunable.
    """

    name: str
    layers: tuple[str, ...]
    channels: Array
    width: int
    minimum: int = 1
    multiple: int = 1
    depth: int = 1
    why: str = ""

    @property
    def size(self) -> int:
        return len(self.channels)


Fixed = str | Iterable[str | keras.Layer] | Callable[[Any], bool]


@dataclass(frozen=True)
class Channels:
    """The channels of a model; printed, a table of its groups.

    The prunable channels are numbered 0 .. `count` - 1; every channel that is kept for good has the number `count`,
    so that `np.append(mask, True)[labels]` is the mask of any tensor or weight axis.

    Args:
        graph: The model that was labelled.
        flows: What each call does, with final numbers as labels; one a call.
        labels: Labels of each tensor, by its id.
        count: Number of prunable channels.
        groups: Disjoint groups that cover all prunable channels.
        fixed: The channels that are kept for good, a group a reason.
        limits: What the user asked to keep.
    """

    graph: graphs.Graph
    flows: tuple[Flow, ...]
    labels: Mapping[int, Array]
    count: int
    groups: tuple[Group, ...]
    fixed: tuple[Group, ...]
    limits: Limits = NO_LIMITS

    def __str__(self) -> str:
        rows = [
            (group.name, group.size, "yes" if not group.why else f"no: {group.why}", ", ".join(group.layers))
            for group in (*self.groups, *self.fixed)
        ]
        kept = sum(group.size for group in self.fixed)
        total = f"{self.count:,} of {self.count + kept:,} channels are prunable, in {len(self.groups)} groups."
        return "\n".join([render(("group", "channels", "prunable", "layers"), rows), total])

    def group_of(self) -> Array:
        """Return the index of each prunable channel's group, shape (count,)."""
        result = np.empty(self.count, np.int64)
        for index, group in enumerate(self.groups):
            result[group.channels] = index
        return result


class _UnionFind:
    """The labels of a model while its rules run (`rules.Labels`)."""

    def __init__(self) -> None:
        self.parent = np.empty(0, np.int64)
        self.reasons: dict[int, str] = {}

    def new(self, count: int) -> Array:
        fresh = np.arange(len(self.parent), len(self.parent) + count)
        self.parent = np.concatenate([self.parent, fresh])
        return fresh

    def tie(self, a: Array, b: Array) -> None:
        for x, y in zip(self.roots(a).tolist(), self.roots(b).tolist(), strict=True):
            x, y = self._root(x), self._root(y)
            self.parent[max(x, y)] = min(x, y)

    def fix(self, a: Array, why: str) -> None:
        for label in np.unique(first_row(a) if is_uniform(a) else a).tolist():
            self.reasons.setdefault(label, why)

    def roots(self, a: Array) -> Array:
        """Return the representative of each label."""
        while True:
            above = self.parent[a]
            if np.array_equal(above, a):
                return a
            a = above

    def why(self) -> dict[int, str]:
        """Return the first reason of each fixed representative."""
        reasons: dict[int, str] = {}
        for label, why in self.reasons.items():
            reasons.setdefault(self._root(label), why)
        return reasons

    def _root(self, label: int) -> int:
        while self.parent[label] != label:
            label = int(self.parent[label])
        return label


def channel_groups(model: keras.Model, *, fixed: Fixed = (), multiple_of: int = 1, min_channels: float = 1) -> Channels:
    """Label the channels of a model.

    Args:
        model: A built Sequential or functional model, channels_last.
        fixed: Layers (or names of layers or of nested models, or a predicate that takes a layer) whose channels are
            all kept; or "unsupported", which keeps the channels that touch a layer without a rule.
        multiple_of: The kept channels a group are a multiple of this, or all of them.
        min_channels: Channels that stay in each group at least: a number, or below 1 a part of the group.

    Returns:
        A value that prints as a table: the groups, their layers, and what is fixed and why.

    Raises:
        UnsupportedLayer: A layer, or a use of one, that has no rule.
        ValueError: Not such a model, a dimension of an input that is not known, or a name that no layer has.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"),
        ...                           keras.layers.Flatten(), keras.layers.Dense(2, name="head")])
        >>> channel_groups(model).groups[0].layers
        ('conv',)
        >>> channel_groups(model, fixed=["conv"]).count
        0
    """
    graph = graphs.read(model)
    return analyze_graph(graph, limits_for(graph, fixed, multiple_of, min_channels))


def limits_for(graph: graphs.Graph, fixed: Fixed, multiple_of: int, min_channels: float) -> Limits:
    """Check what a user asks to keep and resolve it to names of layers."""
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
        raise ValueError(f"Expected multiple_of as a whole number of channels, 1 or more. Received: {multiple_of!r}")
    whole = isinstance(min_channels, (int, np.integer)) and not isinstance(min_channels, bool) and min_channels >= 1
    if not whole and not (isinstance(min_channels, float) and 0 < min_channels < 1):
        raise ValueError(
            "Expected min_channels as a number of channels a group, 1 or more, or a part of it between 0 and 1. "
            f"Received: {min_channels!r}"
        )
    if isinstance(fixed, str) and fixed == "unsupported":
        return Limits((), True, multiple_of, min_channels)
    return Limits(_resolved(graph, fixed), False, multiple_of, min_channels)


def _resolved(graph: graphs.Graph, fixed: Fixed) -> tuple[str, ...]:
    """The names of the calls that the user means."""
    if callable(fixed) and not isinstance(fixed, keras.Layer):
        return tuple(dict.fromkeys(call.name for call in graph.calls if fixed(call.layer)))
    names: dict[str, None] = {}
    wanted = [fixed] if isinstance(fixed, (str, keras.Layer)) else list(fixed)
    for one in wanted:
        found = [call.name for call in graph.calls if one is call.layer or one in (call.name, *call.parents)]
        if isinstance(one, keras.Model):
            found += [call.name for call in graph.calls if one.name in call.parents]
        if not found:
            known = list(dict.fromkeys(name for call in graph.calls for name in (call.name, *call.parents)))
            close = difflib.get_close_matches(str(one), known, n=3) or known[:5]
            raise ValueError(
                f"No layer of the model {graph.name!r} is {one!r}. Expected names of layers or of nested models, "
                f'layers, a predicate, or "unsupported". The nearest names are: {", ".join(close)}.'
            )
        names.update(dict.fromkeys(found))
    return tuple(names)


def analyze_graph(graph: graphs.Graph, limits: Limits = NO_LIMITS) -> Channels:
    """Label the channels of a model's graph; see `channel_groups`."""
    labels = _UnionFind()
    tensors, flows = _run_rules(graph, labels, limits)
    for key in graph.output_ids():
        labels.fix(tensors[key], "the model's output")
    numbers, count = _number(labels)
    final = {key: _relabel(a, numbers) for key, a in tensors.items()}
    numbered = tuple(_relabel_flow(flow, numbers) for flow in flows)
    groups = _groups(graph, numbered, final, count, limits)
    return Channels(graph, numbered, final, count, groups, _fixed_groups(graph, flows, tensors, labels), limits)


def _run_rules(graph: graphs.Graph, labels: _UnionFind, limits: Limits) -> tuple[dict[int, Array], list[Flow]]:
    tensors = {key: _input_labels(graph.shapes[key], layer, labels) for key, layer in graph.input_layers.items()}
    flows, first_flow, fixed = dict[int, Flow](), dict[int, Flow](), set(limits.fixed)
    for call in graphs.from_outputs(graph):
        flow = _run_rule(call, [tensors[key] for key in call.inputs], labels, limits)
        outputs = tuple(rectangular(a, labels) for a in flow.outputs)
        flow = dataclasses.replace(flow, output=outputs)
        if call.name in fixed:
            for a in outputs:
                labels.fix(a, "asked for by fixed=")
        if id(call.layer) in first_flow:
            _tie_weights(first_flow[id(call.layer)], flow, labels)
        first_flow.setdefault(id(call.layer), flow)
        tensors.update(zip(call.outputs, outputs, strict=True))
        flows[call.outputs[0]] = flow
    return tensors, [flows[call.outputs[0]] for call in graph.calls]


def _input_labels(shape: tuple[int | None, ...], layer: Any, labels: _UnionFind) -> Array:
    if len(shape) < 2 or None in shape[1:]:
        raise ValueError(
            f"The input {layer.name!r} has the shape {shape}; expected a batch axis and sizes that are all known, "
            "since memory is planned for one size. Build the model with keras.Input of a full shape."
        )
    sizes = [int(size or 0) for size in shape[1:]]
    row = labels.new(sizes[-1])
    labels.fix(row, f"the model's input {layer.name}")
    return spread(row, sizes)


def _run_rule(call: graphs.Call, inputs: Sequence[Array], labels: _UnionFind, limits: Limits) -> Flow:
    if any(shape is not None and None in shape[1:] for shape in call.shapes):
        raise UnsupportedLayer(
            f"The output of {call.name!r} has the shape {call.shapes[0]}, with sizes that are not known. "
            f"Its inputs: {_shapes(inputs)}. Give its shape in full, for example with Reshape and a full target_shape."
        )
    if limits.unsupported and find_rule(call.layer) is None:
        before = len(labels.reasons)
        flow = keep(call, inputs, labels, f"{call.name} ({type(call.layer).__name__}) has no rule")
        logging.info(
            "tfmcu_prune: %s (%s) has no rule: the %d channels that touch it are kept",
            call.name, type(call.layer).__name__, len(labels.reasons) - before,
        )  # fmt: skip
        return flow
    try:
        return rule_for(call)(call, inputs, labels)
    except UnsupportedLayer as error:
        raise UnsupportedLayer(f"{error} Its inputs: {_shapes(inputs)}.") from None


def _shapes(inputs: Sequence[Array]) -> str:
    return ", ".join(str((None, *a.shape)) for a in inputs)


def _tie_weights(first: Flow, again: Flow, labels: _UnionFind) -> None:
    """A layer called again uses the same weights, so the channels along their axes are the same ones."""
    pairs = [(axes, again.weights.get(name)) for name, axes in first.weights.items()]
    pairs += [
        ((size.labels,), (again.sizes[name].labels,)) for name, size in first.sizes.items() if name in again.sizes
    ]
    for one, other in pairs:
        for a, b in zip(one, other or (None,) * len(one), strict=True):
            if a is not None and b is not None and a.shape == b.shape:
                labels.tie(_row(a), _row(b))
            elif a is not None:
                labels.fix(a, "a layer that is called in several ways")


def _number(labels: _UnionFind) -> tuple[Array, int]:
    """Number the prunable channels in the order of creation; return the number of every label, and the count."""
    roots = labels.roots(np.arange(len(labels.parent)))
    is_fixed = np.zeros(len(roots), bool)
    is_fixed[roots[list(labels.reasons)]] = True
    free = np.unique(roots[~is_fixed[roots]])
    numbers = np.full(len(roots), len(free), np.int64)
    numbers[free] = np.arange(len(free))
    return numbers[roots], len(free)


def _relabel(a: Array, numbers: Array) -> Array:
    if is_uniform(a):
        return spread(numbers[first_row(a)], a.shape)
    return numbers[a]


def _relabel_flow(flow: Flow, numbers: Array) -> Flow:
    def axes(labels: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        return tuple(None if a is None else numbers[a] for a in labels)

    def size(one: Size) -> Size:
        return dataclasses.replace(one, labels=_relabel(one.labels, numbers))

    return dataclasses.replace(
        flow,
        output=tuple(_relabel(a, numbers) for a in flow.outputs),
        weights={name: axes(labels) for name, labels in flow.weights.items()},
        sizes={name: size(one) for name, one in flow.sizes.items()},
        args={position: size(one) for position, one in flow.args.items()},
    )


def _groups(
    graph: graphs.Graph, flows: Sequence[Flow], tensors: Mapping[int, Array], count: int, limits: Limits
) -> tuple[Group, ...]:
    """Two channels are of one group where they stand equally often in every tensor and along every weight axis."""
    rng = np.random.default_rng(0)  # a random linear hash of (place, number of times)
    signature = np.zeros(count + 1, np.uint64)
    touched: list[tuple[str, Array]] = []
    for name, labels in _places(graph, flows, tensors):
        there, times = np.unique(_row(labels), return_counts=True)
        signature[there] += times.astype(np.uint64) * rng.integers(1, 2**63, dtype=np.uint64)
        touched.append((name, there[there < count]))
    _, first, inverse = np.unique(signature[:count], return_index=True, return_inverse=True)
    names: list[dict[str, None]] = [{} for _ in first]
    for name, there in touched:
        for index in np.unique(inverse[there]).tolist() if name else ():
            names[index][name] = None
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    groups, depths = [], _depths(graph, flows, inverse, len(first))
    for index in np.argsort(first).tolist():
        size = len(members[index])
        smallest, layers = limits.minimum(size), tuple(names[index])
        groups.append(Group(layers[0], layers, members[index], size, smallest, limits.multiple_of, depths[index]))
    return tuple(groups)


def _depths(graph: graphs.Graph, flows: Sequence[Flow], group_of: Array, groups: int) -> list[int]:
    """How many calls that mix channels and have each group's as output lie on one way through the graph; at least 1."""
    result, made = np.ones(groups, np.int64), {key: np.zeros(groups, np.int64) for key in graph.input_layers}
    for call, flow in zip(graph.calls, flows, strict=True):
        here = np.max([np.zeros(groups, np.int64), *(made[key] for key in call.inputs)], axis=0)
        if flow.reads:
            channels = np.unique(np.concatenate([_row(labels) for labels in flow.outputs]))
            here[np.unique(group_of[channels[channels < len(group_of)]])] += 1
        made.update(dict.fromkeys(call.outputs, here))
        result = np.maximum(result, here)
    return result.tolist()


def _fixed_groups(
    graph: graphs.Graph, flows: Sequence[Flow], tensors: Mapping[int, Array], labels: _UnionFind
) -> tuple[Group, ...]:
    """The fixed channels by reason, with the layers that hold them; the model's inputs by their own names."""
    why, roots = labels.why(), labels.roots(np.arange(len(labels.parent)))
    reasons = list(dict.fromkeys(why.values()))
    reason_of = np.full(len(roots), -1)
    for root, reason in why.items():
        reason_of[root] = reasons.index(reason)
    reason_of = reason_of[roots]
    layers: list[dict[str, None]] = [{} for _ in reasons]
    for name, a in _places(graph, flows, tensors):
        for index in np.unique(reason_of[_row(a)]).tolist():
            if name and index >= 0:
                layers[index][name] = None
    sizes = np.bincount(reason_of[np.array(list(why), int)], minlength=len(reasons))
    return tuple(
        Group(next(iter(names), reason), tuple(names), np.full(size, -1), int(size), int(size), why=reason)
        for names, size, reason in zip(layers, sizes, reasons, strict=True)
    )


def _places(graph: graphs.Graph, flows: Sequence[Flow], tensors: Mapping[int, Array]) -> Iterator[tuple[str, Array]]:
    """Every place where channels stand: the layer (for a weight that creates or keeps them) and the labels."""
    for call, flow in zip(graph.calls, flows, strict=True):
        for name, axes in flow.weights.items():
            for axis, labels in enumerate(axes):
                if labels is not None:
                    yield ("" if flow.reads.get(name) == axis else call.name), labels
        for key in call.outputs:
            yield "", tensors[key]


def _row(a: Array) -> Array:
    """Labels whose counts tell how often each channel stands in a tensor, up to one factor for all."""
    return first_row(a) if is_uniform(a) else a.reshape(-1)
