"""Which channels a model has, which go together, and where each is stored: the channel graph."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.budget import NO_LIMITS, Limits
from tfmcu_prune.labelling import Labelled, UnionFind, numbered, row_of, run_rules
from tfmcu_prune.rules import Array, Flow
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
    labels, found = run_rules(graph, limits)
    final, count = numbered(labels, found)
    groups = _groups(graph, final, count, limits)
    return Channels(graph, final.flows, final.tensors, count, groups, _fixed_groups(graph, found, labels), limits)


def _groups(graph: graphs.Graph, labelled: Labelled, count: int, limits: Limits) -> tuple[Group, ...]:
    """Two channels are of one group where they stand equally often in every tensor and along every weight axis."""
    rng = np.random.default_rng(0)  # a random linear hash of (place, number of times)
    signature = np.zeros(count + 1, np.uint64)
    touched: list[tuple[str, Array]] = []
    for name, labels in _places(graph, labelled):
        there, times = np.unique(row_of(labels), return_counts=True)
        signature[there] += times.astype(np.uint64) * rng.integers(1, 2**63, dtype=np.uint64)
        touched.append((name, there[there < count]))
    _, first, inverse = np.unique(signature[:count], return_index=True, return_inverse=True)
    names: list[dict[str, None]] = [{} for _ in first]
    for name, there in touched:
        for index in np.unique(inverse[there]).tolist() if name else ():
            names[index][name] = None
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    groups, depths = [], _depths(graph, labelled.flows, inverse, len(first))
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
            channels = np.unique(np.concatenate([row_of(labels) for labels in flow.outputs]))
            here[np.unique(group_of[channels[channels < len(group_of)]])] += 1
        made.update(dict.fromkeys(call.outputs, here))
        result = np.maximum(result, here)
    return result.tolist()


def _fixed_groups(graph: graphs.Graph, labelled: Labelled, labels: UnionFind) -> tuple[Group, ...]:
    """The fixed channels by reason, with the layers that hold them; the model's inputs by their own names."""
    why, roots = labels.why(), labels.roots(np.arange(len(labels.parent)))
    reasons = list(dict.fromkeys(why.values()))
    reason_of = np.full(len(roots), -1)
    for root, reason in why.items():
        reason_of[root] = reasons.index(reason)
    reason_of = reason_of[roots]
    layers: list[dict[str, None]] = [{} for _ in reasons]
    for name, a in _places(graph, labelled):
        for index in np.unique(reason_of[row_of(a)]).tolist():
            if name and index >= 0:
                layers[index][name] = None
    sizes = np.bincount(reason_of[np.array(list(why), int)], minlength=len(reasons))
    return tuple(
        Group(next(iter(names), reason), tuple(names), np.full(size, -1), int(size), int(size), why=reason)
        for names, size, reason in zip(layers, sizes, reasons, strict=True)
    )


def _places(graph: graphs.Graph, labelled: Labelled) -> Iterator[tuple[str, Array]]:
    """Every place where channels stand: the layer (for a weight that creates or keeps them) and the labels."""
    for call, flow in zip(graph.calls, labelled.flows, strict=True):
        for name, axes in flow.weights.items():
            for axis, labels in enumerate(axes):
                if labels is not None:
                    yield ("" if flow.reads.get(name) == axis else call.name), labels
        for key in call.outputs:
            yield "", labelled.tensors[key]
