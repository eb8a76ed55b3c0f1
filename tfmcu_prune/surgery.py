"""From a gated model to a plain, smaller one that computes the same function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.channels import analyze_graph
from tfmcu_prune.gates import gates_of, settle, ungated
from tfmcu_prune.rules import Array, Flow, first_row


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
    keep = np.append(mask > 0, True)
    gates = np.append(mask * (1 + offset), 1).astype("float32")
    channels = analyze_graph(ungated(gated))
    flows = {id(call): flow for call, flow in zip(channels.graph.calls, channels.flows, strict=True)}
    made: dict[int, Any] = {}

    def make(call: graphs.Call) -> Any:
        if id(call.layer) not in made:
            made[id(call.layer)] = graphs.copy_layer(call, **_kept_sizes(call, flows[id(call)], keep))
        return made[id(call.layer)]

    small = graphs.replay(channels.graph, make)
    for call in channels.graph.calls:
        if isinstance(call.layer, keras.Layer):
            made[id(call.layer)].set_weights(_kept_weights(call.layer, flows[id(call)], keep, gates))
    return small


def _kept_sizes(call: graphs.Call, flow: Flow, keep: Array) -> dict[str, Any]:
    """The entries of a layer's configuration that say how many channels it makes."""
    sizes: dict[str, Any] = {}
    for name, labels in flow.sizes.items():
        kept = int(keep[first_row(labels)].sum())
        sizes[name] = kept if labels.ndim == 1 and name != "target_shape" else (*labels.shape[:-1], kept)
    return sizes


def _kept_weights(layer: keras.layers.Layer, flow: Flow, keep: Array, gates: Array) -> list[Array]:
    """The weights of a layer without the removed channels, its kernels read through the gates."""
    named = {id(getattr(layer, name)): name for name in flow.weights}
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
