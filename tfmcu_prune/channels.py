"""Which channels a model has, which go together, and where each is stored: the channel graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array, Flow, first_row, is_uniform, rule_for, spread
from tfmcu_prune.tables import render


@dataclass(frozen=True)
class Group:
    """Channels that cost the same everywhere, so that only their number matters to the resources.

    Args:
        name: The first layer that creates them.
        layers: All layers that create or store them.
        channels: Their positions in the mask of the whole model, int64, shape (size,).
    """

    name: str
    layers: tuple[str, ...]
    channels: Array

    @property
    def size(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class Channels:
    """The channels of a model.

    The prunable channels are numbered 0 .. `count` - 1; every channel that is kept for good has the number `count`,
    so that `np.append(mask, True)[labels]` is the mask of any tensor or weight axis.

    Args:
        graph: The model that was labelled.
        flows: What each call does, with final numbers as labels; one a call.
        labels: Labels of each tensor, by its id.
        count: Number of prunable channels.
        groups: Disjoint groups that cover all prunable channels.
        fixed: Why channels are kept for good.
    """

    graph: graphs.Graph
    flows: tuple[Flow, ...]
    labels: Mapping[int, Array]
    count: int
    groups: tuple[Group, ...]
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        rows = [(group.name, group.size, ", ".join(group.layers)) for group in self.groups]
        table = render(("group", "channels", "layers"), rows)
        return "\n".join([table, *(f"fixed: {reason}" for reason in self.fixed)])

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
        for label in np.unique(a).tolist():
            self.reasons.setdefault(label, why)

    def roots(self, a: Array) -> Array:
        """Return the representative of each label."""
        while True:
            above = self.parent[a]
            if np.array_equal(above, a):
                return a
            a = above

    def _root(self, label: int) -> int:
        while self.parent[label] != label:
            label = int(self.parent[label])
        return label


def channel_groups(model: keras.Model) -> Channels:
    """Label the channels of a model.

    Args:
        model: A built Sequential or functional model, channels_last.

    Raises:
        UnsupportedLayer: A layer, or a use of one, that has no rule.
        ValueError: Not such a model, or a dimension of an input that is not known.
    """
    return analyze_graph(graphs.read(model))


def analyze_graph(graph: graphs.Graph) -> Channels:
    """Label the channels of a model's graph; see `channel_groups`."""
    labels = _UnionFind()
    tensors, flows = _run_rules(graph, labels)
    for id in graph.output_ids():
        labels.fix(tensors[id], "the model's output")
    numbers, count = _number(labels)
    final = {id: _relabel(a, numbers) for id, a in tensors.items()}
    numbered = tuple(_relabel_flow(flow, numbers) for flow in flows)
    return Channels(graph, numbered, final, count, _groups(graph, numbered, final, count), _why(labels))


def _run_rules(graph: graphs.Graph, labels: _UnionFind) -> tuple[dict[int, Array], list[Flow]]:
    tensors: dict[int, Array] = {}
    for tensor, layer in graph.input_layers.items():
        shape = graph.shapes[tensor][1:]
        if not shape or None in shape:
            raise ValueError(
                f"The input {layer.name!r} has the shape {graph.shapes[tensor]}; expected a batch axis and sizes that "
                "are all known, since memory is planned for one size. Build the model with keras.Input of a full shape."
            )
        row = labels.new(int(shape[-1] or 0))
        labels.fix(row, f"the model's input {layer.name}")
        tensors[tensor] = spread(row, [int(size or 0) for size in shape])
    flows, first_flow = [], dict[int, Flow]()
    for call in graph.calls:
        flow = _run_rule(call, [tensors[key] for key in call.inputs], labels)
        if id(call.layer) in first_flow:
            _tie_weights(first_flow[id(call.layer)], flow, labels)
        first_flow.setdefault(id(call.layer), flow)
        outputs = flow.output if isinstance(flow.output, tuple) else (flow.output,)
        tensors.update(zip(call.outputs, outputs, strict=True))
        flows.append(flow)
    return tensors, flows


def _run_rule(call: graphs.Call, inputs: Sequence[Array], labels: _UnionFind) -> Flow:
    shapes = ", ".join(str((None, *a.shape)) for a in inputs)
    try:
        return rule_for(call.layer)(call.layer, inputs, labels)
    except UnsupportedLayer as error:
        raise UnsupportedLayer(f"{error} Its inputs: {shapes}.") from None


def _tie_weights(first: Flow, again: Flow, labels: _UnionFind) -> None:
    """A layer called again uses the same weights, so the channels along their axes are the same ones."""
    for name, axes in first.weights.items():
        for a, b in zip(axes, again.weights[name], strict=True):
            if a is not None and b is not None:
                labels.tie(a, b)


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

    output = flow.output if isinstance(flow.output, tuple) else (flow.output,)
    return Flow(
        tuple(_relabel(a, numbers) for a in output),
        {name: axes(labels) for name, labels in flow.weights.items()},
        dict(flow.reads),
        {name: _relabel(a, numbers) for name, a in flow.sizes.items()},
    )


def _groups(graph: graphs.Graph, flows: Sequence[Flow], tensors: Mapping[int, Array], count: int) -> tuple[Group, ...]:
    """Two channels are of one group where they stand equally often in every tensor and along every weight axis."""
    rng = np.random.default_rng(0)  # a random linear hash of (place, number of times)
    signature = np.zeros(count + 1, np.uint64)
    touched: list[tuple[str, Array]] = []
    for name, labels in _places(graph, flows, tensors):
        times = np.bincount(_row(labels), minlength=count + 1).astype(np.uint64)
        signature += times * rng.integers(1, 2**63, dtype=np.uint64)
        touched.append((name, times > 0))
    _, first, inverse = np.unique(signature[:count], return_index=True, return_inverse=True)
    groups = []
    for index in np.argsort(first):
        channels = np.flatnonzero(inverse == index)
        names = dict.fromkeys(name for name, there in touched if name and there[channels[0]])
        groups.append(Group(next(iter(names)), tuple(names), channels))
    return tuple(groups)


def _places(graph: graphs.Graph, flows: Sequence[Flow], tensors: Mapping[int, Array]) -> Iterator[tuple[str, Array]]:
    """Every place where channels stand: the layer (for a weight that creates or keeps them) and the labels."""
    for call, flow in zip(graph.calls, flows, strict=True):
        for name, axes in flow.weights.items():
            for axis, labels in enumerate(axes):
                if labels is not None:
                    yield ("" if flow.reads.get(name) == axis else call.name), labels
        for id in call.outputs:
            yield "", tensors[id]


def _row(a: Array) -> Array:
    """Labels whose counts tell how often each channel stands in a tensor, up to one factor for all."""
    return first_row(a) if is_uniform(a) else a.reshape(-1)


def _why(labels: _UnionFind) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels.reasons.values()))
