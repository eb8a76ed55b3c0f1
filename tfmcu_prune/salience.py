"""What a channel is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfmcu_prune.channels import Channels
from tfmcu_prune.graph import Call
from tfmcu_prune.rules import Array, Flow, weight_of


def weight_norm(channels: Channels, gates: Array) -> Array:
    """Return the salience of each channel from the weights that make it, float64, shape (channels,).

    For a kernel w that makes channel c, I_c = |gate_c| ||w_c|| / mean_k ||w_k||, averaged over all the kernels that
    make the channel, so that every branch of a residual group has its say.

    Args:
        channels: The channels of a model, with its layers.
        gates: What the channel's readers multiply it by, shape (channels,).

    Source: magnitude ranking as in Li et al. 2017 (arXiv 1608.08710); averaging over groups as in DepGraph, Fang et al.
        2023 (arXiv 2301.12900).
    """
    total, places = np.zeros(channels.count + 1), np.zeros(channels.count + 1)
    for labels, norms in _norms(channels):
        mean = norms.mean()
        np.add.at(total, labels, norms / mean if mean > 0 else norms)
        np.add.at(places, labels, 1)
    return np.abs(gates) * (total / np.maximum(places, 1))[:-1]


def batch_norm_scale(channels: Channels, gates: Array) -> Array:
    """Return the salience of each channel from the scales of the batch normalizations it runs through.

    I_c = |gate_c gamma_c|, averaged over the layers; a channel without one has that of `weight_norm`.

    Args:
        channels: The channels of a model, with its layers.
        gates: What the channel's readers multiply it by, shape (channels,).

    Source: Liu et al. 2017, Network Slimming (arXiv 1708.06519).
    """
    total, places = np.zeros(channels.count + 1), np.zeros(channels.count + 1)
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        if isinstance(call.layer, keras.layers.BatchNormalization) and call.layer.scale:
            row = np.asarray(flow.weights["gamma"][0])
            np.add.at(total, row, np.abs(keras.ops.convert_to_numpy(call.layer.gamma)))
            np.add.at(places, row, 1)
    scale = np.abs(gates) * (total / np.maximum(places, 1))[:-1]
    return np.where(places[:-1] > 0, scale, weight_norm(channels, gates))


def outgoing_norm(channels: Channels, gates: Array) -> Array:
    """Return the salience of each channel from what its readers make of it.

    I_c = |gate_c gamma_c| ||w_.c|| / mean_k ||w_.k||, averaged over all the kernels that read the channel: batch
    normalization undoes the scale of the weights that make a channel, but not that of the weights that read it. Without
    batch normalization `weight_norm` stands for gamma.

    Args:
        channels: The channels of a model, with its layers.
        gates: What the channel's readers multiply it by, shape (channels,).

    Source: ours.
    """
    total, places = np.zeros(channels.count + 1), np.zeros(channels.count + 1)
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        for name, axis in flow.reads.items():
            labels = np.asarray(flow.weights[name][axis])
            value = np.asarray(keras.ops.convert_to_numpy(weight_of(call.layer, name)), np.float64)
            norms = np.sqrt(np.square(value).sum(axis=tuple(i for i in range(value.ndim) if i != axis)))
            mean = norms.mean()
            np.add.at(total, labels, norms / mean if mean > 0 else norms)
            np.add.at(places, labels, 1)
    return batch_norm_scale(channels, gates) * (total / np.maximum(places, 1))[:-1]


def gate_gradient(optimizer: keras.Optimizer) -> Callable[[Channels, Array], Array]:
    """Return the first-order Taylor salience: the squared gradient of the loss by each channel's gate.

    I_c <- rho I_c + (1 - rho) (dL/dgate_c)^2 is what Adam keeps of the gates anyway, so that it costs nothing.

    Args:
        optimizer: The Adam or AdamW that trains the gated model.

    Source: Molchanov et al. 2019 (arXiv 1906.10771), equation 8, averaged as Adam does (arXiv 1412.6980).
    """

    def salience(channels: Channels, gates: Array) -> Array:
        found = [v for v in optimizer.variables if v.path.endswith("channel_gates_offset_velocity")]
        if len(found) != 1:
            raise ValueError(
                "Expected the built Adam or AdamW of a gated model, which keeps the squared gradient of the gates. "
                f"Received: {optimizer!r} with {len(found)} such variables."
            )
        return np.asarray(keras.ops.convert_to_numpy(found[0]), np.float64) * np.square(gates)

    return salience


def _norms(channels: Channels) -> Iterator[tuple[Array, Array]]:
    """Labels and norms along the output axis of every kernel that creates channels."""
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        for name, axis, labels in _output_axes(call, flow):
            value = np.asarray(keras.ops.convert_to_numpy(weight_of(call.layer, name)), np.float64)
            others = tuple(i for i in range(value.ndim) if i != axis)
            yield labels, np.sqrt(np.square(value).sum(axis=others))


def _output_axes(call: Call, flow: Flow) -> Iterator[tuple[str, int, Any]]:
    """The axes of weights along which a layer makes channels: of what it reads with, or of an embedding."""
    for name in flow.reads or (flow.weights if flow.sizes else ()):
        for axis, labels in enumerate(flow.weights[name]):
            if labels is not None and axis != flow.reads.get(name):
                yield name, axis, labels
