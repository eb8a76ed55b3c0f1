"""From a gated model to a plain, smaller one that computes the same function."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.channels import Channels
from tfmcu_prune.gates import gates_of
from tfmcu_prune.gating import channels_of, settle
from tfmcu_prune.rules import Array, Flow, weight_of


def strip(gated: keras.Model) -> keras.Model:
    """Build the small model: pruned channels are gone, what is left of the gates is folded into the kernels.

    Args:
        gated: What `prunable` returned, trained or not.

    Returns:
        An ordinary Keras model with the layers, names and settings of the model given to `prunable`, not compiled.

    Raises:
        ValueError: The model has no gates.

    Example:
        >>> import keras
        >>> import tfmcu_prune
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"),
        ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> gated = tfmcu_prune.prunable(model)
        >>> tfmcu_prune.set_mask(gated, np.array([True, False, True, False]))
        >>> strip(gated).get_layer("conv").filters
        2
    """
    settle(gated)
    layer = gates_of(gated)
    mask = np.asarray(keras.ops.convert_to_numpy(layer.mask))
    offset = np.asarray(keras.ops.convert_to_numpy(layer.offset))
    return rebuilt(channels_of(gated), mask > 0, mask * (1 + offset))


def rebuilt(channels: Channels, mask: Array, gates: Array) -> keras.Model:
    """Return the model with the channels that a mask keeps, its kernels read through `gates`; both (channels,)."""
    keep, gates = np.append(mask, True), np.append(gates, 1).astype("float32")
    flows = {id(call.layer): flow for call, flow in zip(channels.graph.calls, channels.flows, strict=True)}
    made: dict[int, Any] = {}

    def make(call: graphs.Call) -> Any:
        if id(call.layer) not in made:
            made[id(call.layer)] = zeroed(graphs.copy_layer(call, **_kept_sizes(call, flows[id(call.layer)], keep)))
        return made[id(call.layer)]

    with graphs.without_drawing() as zeroed:
        small = graphs.replay(_kept_arguments(channels, keep), make)
    for call in channels.graph.calls:
        if isinstance(call.layer, keras.Layer):
            made[id(call.layer)].set_weights(_kept_weights(call.layer, flows[id(call.layer)], keep, gates))
    return small


def _kept_arguments(channels: Channels, keep: Array) -> graphs.Graph:
    """The graph with those arguments of calls that count channels, such as slices, as the mask leaves them."""
    calls = []
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        args = list(call.args)
        for position, size in flow.args.items():
            args[position] = size.of(keep[size.labels])
        calls.append(dataclasses.replace(call, args=tuple(args)))
    return dataclasses.replace(channels.graph, calls=tuple(calls))


def _kept_sizes(call: graphs.Call, flow: Flow, keep: Array) -> dict[str, Any]:
    """The entries of a layer's configuration that say how many channels it makes."""
    changes: dict[str, Any] = {}
    for path, size in flow.sizes.items():
        *wrapped, name = path.split(".")
        config = changes
        for outer in wrapped:  # the configuration of a wrapped layer stands in that of its wrapper
            config = config.setdefault(outer, copy.deepcopy(call.layer.get_config()[outer]))["config"]
        config[name] = size.of(keep[size.labels])
    return changes


def _kept_weights(layer: keras.layers.Layer, flow: Flow, keep: Array, gates: Array) -> list[Array]:
    """The weights of a layer without the removed channels, its kernels read through the gates."""
    named = {id(weight_of(layer, name)): name for name in flow.weights}
    values = []
    for weight in layer.weights:
        value, name = np.asarray(keras.ops.convert_to_numpy(weight)), named.get(id(weight))
        if name is not None:
            axes = flow.weights[name]
            read = flow.reads.get(name)
            if read is not None:
                value = value * gates[axes[read]].reshape((-1, *[1] * (value.ndim - read - 1))).astype(value.dtype)
            for axis, labels in enumerate(axes):
                if labels is not None:
                    value = np.compress(keep[labels], value, axis=axis)
        values.append(value)
    return values
