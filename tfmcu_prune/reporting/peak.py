"""Why a model does not get smaller: what is alive at the peak of the memory, which layers that ties, what is fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfmcu_prune.channels import Channels
from tfmcu_prune.forms import ResourceModel
from tfmcu_prune.resources import RESOURCES, evaluate, floor
from tfmcu_prune.rules import Array
from tfmcu_prune.tflm.footprint import Footprint
from tfmcu_prune.tflm.schema import Subgraph, read_model

_ALIGNMENT = 16


@dataclass(frozen=True)
class Holder:
    """A tensor that is alive at the peak.

    Args:
        layer: The layer that makes it.
        shape: Its shape.
        bytes: Its size in the arena.
        coupled: Layers that lose a channel with it, the layer itself left out.
        fixed: How many of its channels no pruning can take, and why.
        reasons: Why they are fixed.
    """

    layer: str
    shape: tuple[int, ...]
    bytes: int
    coupled: tuple[str, ...]
    fixed: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """Why a model does not get smaller.

    Args:
        operator: The operator at the peak, and its layer.
        layer: Its layer.
        holders: The tensors alive there, the largest first.
        scratch: Bytes of its scratch buffers.
        persistent: Bytes that TensorFlow Lite Micro holds all the time.
        phase: What binds the arena: "final" (the operators), "prepare" or "planning" (TFLM's own start).
        fixed: Channels that no pruning can take: how many, of which layers (none for an input), and why.
        least: What is left with every group of channels at its smallest, by resource.
        predicted: What the closed form said of the pruned model, by resource.
        measured: What its file takes.
    """

    operator: str
    layer: str
    holders: tuple[Holder, ...]
    scratch: int
    persistent: int
    phase: str
    fixed: tuple[tuple[int, str, str], ...]
    least: dict[str, int]
    predicted: dict[str, int]
    measured: dict[str, int]


def explain(channels: Channels, model: ResourceModel, mask: Array, tflite: bytes, fp: Footprint) -> Why:
    """Return why the pruned model that `tflite` holds does not get smaller."""
    graph, peak = read_model(tflite).main, fp.operators[fp.peak.operator]
    holders = [_holder(channels, graph, index) for index in _alive(graph, peak.index)]
    costs = {"least": floor(model), "predicted": evaluate(model, model.sizes(mask)), "measured": fp}
    return Why(
        operator=peak.name,
        layer=layer_of(graph, peak.index),
        holders=tuple(sorted(holders, key=lambda holder: -holder.bytes)),
        scratch=peak.scratch,
        persistent=fp.tail,
        phase=fp.peak.phase,
        fixed=tuple((group.size, ", ".join(group.layers), group.why) for group in channels.fixed),
        **{kind: {name: getattr(cost, name) for name in RESOURCES} for kind, cost in costs.items()},
    )


def layer_of(graph: Subgraph, operator: int) -> str:
    """Return the name of the layer that an operator of a converted file comes from."""
    return _layer(graph.tensors[graph.operators[operator].outputs[0]].name)


def _layer(tensor: str) -> str:
    return tensor.split(":")[0]


def _alive(graph: Subgraph, operator: int) -> list[int]:
    """The tensors that hold data while an operator runs."""
    first, last = dict.fromkeys(graph.inputs, 0), dict.fromkeys(graph.outputs, len(graph.operators))
    for step in graph.operators:
        first.update(dict.fromkeys(step.outputs, step.index))
        for index in step.inputs:
            last[index] = max(last.get(index, 0), step.index)
    return [index for index, start in first.items() if start <= operator <= last.get(index, start)]


def _holder(channels: Channels, graph: Subgraph, index: int) -> Holder:
    tensor = graph.tensors[index]
    layer = _layer(tensor.name)
    labels = _labels(channels, layer)
    groups = [group for group in channels.groups if np.isin(group.channels, labels).any()]
    coupled = dict.fromkeys(name for group in groups for name in group.layers if name != layer)
    fixed = int((labels == channels.count).sum())
    reasons = dict.fromkeys(group.why for group in channels.fixed if layer in group.layers) if fixed else {}
    size = -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return Holder(layer, tensor.shape, size, tuple(coupled), fixed, tuple(reasons))


def _labels(channels: Channels, layer: str) -> Array:
    """The labels of the channels that a layer puts out; none for a name that no layer has."""
    outputs = {call.name: call.outputs[0] for call in reversed(channels.graph.calls)}
    outputs |= {made.name: key for key, made in channels.graph.input_layers.items()}
    if layer not in outputs:
        return np.empty(0, np.int64)
    labels = channels.labels[outputs[layer]]
    return labels[(0,) * (labels.ndim - 1)]
