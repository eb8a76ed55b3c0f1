"""The rules of all layers run on the labels of a model's channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.budget import Limits
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array, Flow, Size, find_rule, first_row, is_uniform, keep, rectangular, rule_for, spread


class UnionFind:
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
        for label in np.unique(row_of(a)).tolist():
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


@dataclass(frozen=True)
class Labelled:
    """The labels of all that a model has; without numbers yet, or numbered.

    Args:
        tensors: Labels of each tensor, by its id.
        flows: What each call does, one a call.
    """

    tensors: dict[int, Array]
    flows: tuple[Flow, ...]


def run_rules(graph: graphs.Graph, limits: Limits) -> tuple[UnionFind, Labelled]:
    """Run the rule of every call on labels; what the limits name, and the model's inputs and outputs, are fixed."""
    labels = UnionFind()
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
    for key in graph.output_ids():
        labels.fix(tensors[key], "the model's output")
    return labels, Labelled(tensors, tuple(flows[call.outputs[0]] for call in graph.calls))


def _input_labels(shape: tuple[int | None, ...], layer: Any, labels: UnionFind) -> Array:
    if len(shape) < 2 or None in shape[1:]:
        raise ValueError(
            f"The input {layer.name!r} has the shape {shape}; expected a batch axis and sizes that are all known, "
            "since memory is planned for one size. Build the model with keras.Input of a full shape."
        )
    sizes = [int(size or 0) for size in shape[1:]]
    row = labels.new(sizes[-1])
    labels.fix(row, f"the model's input {layer.name}")
    return spread(row, sizes)


def _run_rule(call: graphs.Call, inputs: Sequence[Array], labels: UnionFind, limits: Limits) -> Flow:
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


def _tie_weights(first: Flow, again: Flow, labels: UnionFind) -> None:
    """A layer called again uses the same weights, so the channels along their axes are the same ones."""
    pairs = [(axes, again.weights.get(name)) for name, axes in first.weights.items()]
    pairs += [
        ((size.labels,), (again.sizes[name].labels,)) for name, size in first.sizes.items() if name in again.sizes
    ]
    for one, other in pairs:
        for a, b in zip(one, other or (None,) * len(one), strict=True):
            if a is not None and b is not None and a.shape == b.shape:
                labels.tie(row_of(a), row_of(b))
            elif a is not None:
                labels.fix(a, "a layer that is called in several ways")


def numbered(labels: UnionFind, found: Labelled) -> tuple[Labelled, int]:
    """Number the prunable channels in the order of creation, the fixed ones alike behind them; return their count."""
    numbers, count = _numbers(labels)
    tensors = {key: _relabel(a, numbers) for key, a in found.tensors.items()}
    return Labelled(tensors, tuple(_relabel_flow(flow, numbers) for flow in found.flows)), count


def _numbers(labels: UnionFind) -> tuple[Array, int]:
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


def row_of(a: Array) -> Array:
    """Labels whose counts tell how often each channel stands in a tensor, up to one factor for all."""
    return first_row(a) if is_uniform(a) else a.reshape(-1)
