"""Rules of the layers that run over time or over other layers: recurrent ones, attention, wrappers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import layers

from tfmcu_prune.graph import Call
from tfmcu_prune.rules.flow import (
    Array,
    Axes,
    Flow,
    Labels,
    Rule,
    Size,
    channel_row,
    keep,
    output_shape,
    spread,
)


def recurrent(gates: int) -> Rule:
    """A recurrent layer whose kernels hold `gates` blocks of its units; the units can be cut like channels."""

    def rule(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
        layer = call.layer
        if len(inputs) > 1 or layer.return_state:
            return keep(call, inputs, labels, f"{call.name} has states outside")
        row, out = channel_row(inputs[0], labels, call), labels.new(layer.units)
        weights, reads = _cell(layer, "cell", row, out, gates)
        return Flow(spread(out, output_shape(call)), weights, reads, {"units": Size(out)})

    return rule


def _cell(layer: Any, prefix: str, row: Array, out: Array, gates: int) -> tuple[dict[str, Axes], dict[str, int]]:
    """The weights of a cell: unit k of every block is one channel, which the recurrent kernel reads as well."""
    columns = np.tile(out, gates)
    weights: dict[str, Axes] = {f"{prefix}.kernel": (row, columns), f"{prefix}.recurrent_kernel": (out, columns)}
    if layer.use_bias:
        twice = getattr(layer, "reset_after", False)  # GRU: a bias for the input and one for the recurrence
        weights[f"{prefix}.bias"] = (None, columns) if twice else (columns,)
    return weights, {f"{prefix}.kernel": 0, f"{prefix}.recurrent_kernel": 0}


_GATES: dict[type, int] = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}


def bidirectional(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """Two recurrent layers of as many units: unit k of both goes or stays together."""
    layer, inner = call.layer, call.layer.forward_layer
    gates = _GATES.get(type(inner))
    if gates is None or type(layer.backward_layer) is not type(inner) or len(inputs) > 1 or inner.return_state:
        return keep(call, inputs, labels)
    row, out = channel_row(inputs[0], labels, call), labels.new(inner.units)
    weights: dict[str, Axes] = {}
    reads: dict[str, int] = {}
    for name in ("forward_layer", "backward_layer"):
        more, read = _cell(inner, f"{name}.cell", row, out, gates)
        weights, reads = {**weights, **more}, {**reads, **read}
    sizes = {"layer.units": Size(out)}
    if "backward_layer" in layer.get_config():
        sizes["backward_layer.units"] = Size(out)
    if layer.merge_mode is None:
        shape = output_shape(call)
        return Flow((spread(out, shape), spread(out, shape)), weights, reads, sizes)
    both = np.tile(out, 2) if layer.merge_mode == "concat" else out
    return Flow(spread(both, output_shape(call)), weights, reads, sizes)


def time_distributed(rule_for: Callable[[Call], Rule]) -> Rule:
    """The wrapped layer at every step: its own rule on one step."""

    def rule(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
        steps = inputs[0]
        if steps.shape[0] > 1 and (steps != steps[:1]).any():
            return keep(call, inputs, labels, f"{call.name} reads channels that differ from step to step")
        shapes = tuple((shape[0], *shape[2:]) for shape in call.shapes if shape is not None)
        inner = dataclasses.replace(call, layer=call.layer.layer, shapes=shapes)
        flow = rule_for(inner)(inner, [_uniform(steps)], labels)
        return Flow(
            tuple(np.broadcast_to(a, (steps.shape[0], *a.shape)) for a in flow.outputs),
            {f"layer.{name}": axes for name, axes in flow.weights.items()},
            {f"layer.{name}": axis for name, axis in flow.reads.items()},
            {f"layer.{name}": size for name, size in flow.sizes.items()},
        )

    return rule


def _uniform(steps: Array) -> Array:
    return np.asarray(steps[0])


def multi_head_attention(call: Call, inputs: Sequence[Array], labels: Labels) -> Flow:
    """The projections read prunable channels and make prunable ones; heads and keys stay."""
    layer = call.layer
    if len(inputs) not in (2, 3) or any(a.ndim < 2 for a in inputs) or layer.get_config().get("use_gate"):
        return keep(call, inputs, labels)
    query, value, key = inputs[0], inputs[1], inputs[-1]
    rows = {"query": query, "key": key, "value": value}
    out = labels.new(output_shape(call)[-1])
    weights: dict[str, Axes] = {
        f"{name}_dense.kernel": (channel_row(a, labels, call), None, None) for name, a in rows.items()
    }
    reads = dict.fromkeys(weights, 0)
    weights["output_dense.kernel"] = (None, None, out)
    if layer.output_dense.bias is not None:
        weights["output_dense.bias"] = (out,)
    output = spread(out, output_shape(call))
    return Flow(output, weights, reads, {"output_shape": Size(out, lambda kept: (int(kept.sum()),))})


SEQUENCE: dict[type, Rule] = {
    **{cls: recurrent(gates) for cls, gates in _GATES.items()},
    layers.Bidirectional: bidirectional,
    layers.MultiHeadAttention: multi_head_attention,
    **dict.fromkeys(
        [layers.RNN, layers.Attention, layers.AdditiveAttention, layers.GroupQueryAttention, layers.EinsumDense]
        + [layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D],
        keep,
    ),
}
