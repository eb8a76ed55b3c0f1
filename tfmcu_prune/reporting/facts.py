"""What a report tells, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfmcu_prune.allocation import allocate, shadow_prices
from tfmcu_prune.boards import BOARDS
from tfmcu_prune.budget import Budget
from tfmcu_prune.channels import Channels
from tfmcu_prune.converter import convert
from tfmcu_prune.forms import ResourceModel, resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.gating import channels_of, get_mask
from tfmcu_prune.reporting.peak import Why, explain, layer_of
from tfmcu_prune.rules import Array
from tfmcu_prune.surgery import rebuilt, strip
from tfmcu_prune.tflm import run
from tfmcu_prune.tflm.commands import board_row
from tfmcu_prune.tflm.footprint import Footprint, footprint
from tfmcu_prune.tflm.schema import read_model

_MORE = 1.1  # how much more of a budget is tried


@dataclass(frozen=True)
class Side:
    """One of the two networks.

    Args:
        params: Weights of the Keras model.
        file: The int8 .tflite.
        footprint: What it costs.
        layers: The layer of each operator of the file.
        accuracy: Of the Keras model in float, 0 to 1, if it was measured.
        accuracy_int8: Of the file on TensorFlow Lite Micro, if it was measured.
    """

    params: int
    file: bytes
    footprint: Footprint
    layers: tuple[str, ...]
    accuracy: float | None = None
    accuracy_int8: float | None = None


@dataclass(frozen=True)
class LayerCost:
    """What a layer costs before and after; bytes and multiply-accumulates of its operators.

    Args:
        name: Its name; that of the first one where layers are fused.
        macs: Before and after.
        weights: Before and after.
    """

    name: str
    macs: tuple[int, int]
    weights: tuple[int, int]


@dataclass(frozen=True)
class Bound:
    """How tight a budget is.

    Args:
        resource: "arena", "flash" or "macs".
        limit: The budget.
        used: What the file takes.
        price: Its shadow price; see `shadow_prices`.
        more: How many channels more would stay with ten per cent more of it.
    """

    resource: str
    limit: int
    used: int
    price: float
    more: int

    @property
    def part(self) -> float:
        return self.used / self.limit

    @property
    def binds(self) -> bool:
        return self.price > 0

    @property
    def over(self) -> bool:
        return self.used > self.limit


@dataclass(frozen=True)
class Facts:
    """All that a report tells.

    Args:
        title: Its heading.
        budget: What the pruned network was to fit.
        before: The network with all its channels.
        after: The pruned one.
        kept: Channels of each layer that makes new ones: name, before, after.
        layers: The costs by layer.
        bounds: The budgets.
        training: Series over the epochs, by their names in `History`.
        boards: Rows of `tfmcu-prune boards` for the pruned network.
        why: Why it does not get smaller.
    """

    title: str
    budget: Budget
    before: Side
    after: Side
    kept: tuple[tuple[str, int, int], ...]
    layers: tuple[LayerCost, ...]
    bounds: tuple[Bound, ...]
    training: Mapping[str, Sequence[float]]
    boards: tuple[Mapping[str, Any], ...]
    why: Why


def collect(
    gated: keras.Model,
    calibration: Any,
    *,
    dense: keras.Model | None,
    test: tuple[Any, Any] | None,
    history: Mapping[str, Sequence[float]],
    title: str,
) -> Facts:
    """Convert both networks, measure them, and return what the report tells; see `report`."""
    channels, mask, budget = channels_of(gated), get_mask(gated), gates_of(gated).budget
    model, small = resource_model(channels), strip(gated)
    whole = rebuilt(channels, np.ones(channels.count, bool), np.ones(channels.count)) if dense is None else dense
    before = _side(whole, calibration, None if dense is None else test)
    after = _side(small, calibration, test)
    return Facts(
        title=title,
        budget=budget,
        before=before,
        after=after,
        kept=_kept(channels, mask),
        layers=_layers(before, after),
        bounds=_bounds(model, budget, mask, after.footprint),
        training=history,
        boards=tuple(board_row(board, after.file) for board in BOARDS),
        why=explain(channels, model, mask, after.file, after.footprint),
    )


def _side(model: keras.Model, calibration: Any, test: tuple[Any, Any] | None) -> Side:
    file = convert(model, calibration=calibration)
    graph = read_model(file).main
    side = (model.count_params(), file, footprint(file), tuple(layer_of(graph, i) for i in range(len(graph.operators))))
    if test is None:
        return Side(*side)
    x, y = test
    return Side(*side, _accuracy(model.predict(x, verbose=0), y), _accuracy(run(file, x), y))


def _accuracy(outputs: Any, labels: Any) -> float:
    if isinstance(outputs, (list, dict)) or np.ndim(outputs) != 2 or np.shape(labels) != np.shape(outputs)[:1]:
        shape = [np.shape(output) for output in outputs] if isinstance(outputs, list) else np.shape(outputs)
        raise ValueError(
            "Expected test=(x, y) of a classifier with one output of shape (samples, classes), and y as class numbers "
            f"of shape (samples,). Received: outputs of {shape}, y of {np.shape(labels)}"
        )
    return float(np.mean(np.argmax(outputs, axis=-1) == np.asarray(labels)))


def _kept(channels: Channels, mask: Array) -> tuple[tuple[str, int, int], ...]:
    """The channels of each layer that mixes what it reads, and so makes new ones."""
    keep, rows, seen = np.append(mask, True), [], set[int]()
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        if flow.reads and id(call.layer) not in seen:
            seen.add(id(call.layer))
            labels = flow.outputs[0]
            row = labels[(0,) * (labels.ndim - 1)]
            rows.append((call.name, len(row), int(keep[row].sum())))
    return tuple(rows)


def _layers(before: Side, after: Side) -> tuple[LayerCost, ...]:
    costs = [_by_layer(side) for side in (before, after)]
    names = dict.fromkeys(name for cost in costs for name in cost)
    pairs = ((name, [cost.get(name, (0, 0)) for cost in costs]) for name in names)
    return tuple(
        LayerCost(name, (old[0], new[0]), (old[1], new[1])) for name, (old, new) in pairs if any(old) or any(new)
    )


def _by_layer(side: Side) -> dict[str, tuple[int, int]]:
    result = dict[str, tuple[int, int]]()
    for name, operator in zip(side.layers, side.footprint.operators, strict=True):
        macs, weights = result.get(name, (0, 0))
        result[name] = (macs + operator.macs, weights + operator.weights)
    return result


def _bounds(model: ResourceModel, budget: Budget, mask: Array, fp: Footprint) -> tuple[Bound, ...]:
    limits = budget.limits()
    if not limits:
        return ()
    prices = shadow_prices(model, budget, model.sizes(mask))
    kept = int(allocate(model, budget).sum())
    bounds = []
    for name, limit in limits.items():
        wider = Budget(**{**limits, name: int(_MORE * limit)})
        more = int(allocate(model, wider).sum()) - kept
        bounds.append(Bound(name, limit, getattr(fp, name), prices[name], more))
    return tuple(bounds)
