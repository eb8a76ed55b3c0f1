"""The Keras layers that hold and apply channel masks, and `prunable`, which puts them into a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from absl import logging
from keras import ops

from tfmcu_prune import graph as graphs
from tfmcu_prune.budget import Budget
from tfmcu_prune.channels import Channels, Fixed, Limits, analyze_graph, limits_for
from tfmcu_prune.resources import require_feasible, resource_model
from tfmcu_prune.rules import Array, weight_of

_REGISTER = keras.saving.register_keras_serializable(package="tfmcu_prune")


@_REGISTER
class ChannelGates(keras.layers.Layer):
    """Holds the state of the pruning of a whole model: one gate a prunable channel.

    The output, float32 of shape (count,), is `mask * (1 + offset)`: the hard mask times what the optimizer learns.
    While it trains it adds the resource-aware regularizer `sum_c price_c |gate_c|` to the loss.

    Args:
        count: Number of prunable channels.
        budget: Fields of the `Budget` that `PruneCallback` reaches.
        limits: Fields of the `Limits` that the user asked for.
    """

    def __init__(
        self, count: int, budget: Mapping[str, int | None], limits: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.count = count
        self.budget = Budget(**budget)
        limits = limits or {}
        self.limits = Limits(**{**limits, "fixed": tuple(limits.get("fixed", ()))})
        self.final: Array | None = None  # the mask that PruneCallback froze, if it did

    def build(self, input_shape: Any) -> None:
        shape = (self.count,)
        self.mask = self.add_weight(shape=shape, initializer="ones", trainable=False, name="mask")
        self.price = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="price")
        self.offset = self.add_weight(shape=shape, initializer="zeros", name="offset")

    def call(self, inputs: Any) -> Any:
        gates = self.mask * (1.0 + self.offset)
        self.add_loss(ops.sum(self.price * ops.abs(gates)))
        return gates

    def compute_output_shape(self, input_shape: Any) -> tuple[int, ...]:
        return (self.count,)

    def get_config(self) -> dict[str, Any]:
        budget, limits = dataclasses.asdict(self.budget), dataclasses.asdict(self.limits)
        return {**super().get_config(), "count": self.count, "budget": budget, "limits": limits}


@_REGISTER
class Gated(keras.layers.Layer):
    """A layer that mixes channels and reads each input channel through its gate.

    The gate multiplies the rows of the kernel, not the activations: the same function at 1-2 % of the cost, and exact
    to strip, since a channel that nobody reads can go with its producer.

    Args:
        layer: The layer, for example a Conv2D.
        reads: Attribute of a weight -> (its axis of input channels, the gates along it as runs [start, stop)); a run
            that starts at `count` stands for channels that are kept for good.
        several: Whether the layer takes several tensors as arguments of their own, as attention does.
    """

    def __init__(
        self, layer: keras.layers.Layer, reads: Mapping[str, Any], several: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "name": layer.name, "dtype": layer.dtype_policy, "autocast": False})
        self.layer, self.several = layer, several
        self.supports_masking = layer.supports_masking
        self.reads = {name: (int(axis), [list(map(int, run)) for run in runs]) for name, (axis, runs) in reads.items()}

    def build(self, inputs_shape: Any, gates_shape: Any) -> None:
        if not self.layer.built:  # a loaded layer is
            self.layer.build(*inputs_shape) if self.several else self.layer.build(inputs_shape)

    def call(self, inputs: Any, gates: Any, **kwargs: Any) -> Any:
        variables = self.layer.variables
        values = {id(variable): variable.value for variable in variables}
        for name, (axis, runs) in self.reads.items():
            kernel = weight_of(self.layer, name)
            rows = ops.cast(take_runs(gates, runs), kernel.dtype)
            values[id(kernel)] = kernel * ops.reshape(rows, (-1, *[1] * (len(kernel.shape) - axis - 1)))
        mapping = [(variable, values[id(variable)]) for variable in variables]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.layer(*inputs, **kwargs) if self.several else self.layer(inputs, **kwargs)
        for loss in scope.losses:
            self.add_loss(loss)
        for variable in variables:  # what the layer changed: the state of its random numbers
            value = scope.get_current_value(variable)
            if not variable.trainable and value is not values[id(variable)]:
                variable.assign(value)
        return outputs

    def compute_output_shape(self, inputs_shape: Any, gates_shape: Any) -> Any:
        compute = self.layer.compute_output_shape
        return compute(*inputs_shape) if self.several else compute(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        layer = keras.saving.serialize_keras_object(self.layer)
        return {"layer": layer, "reads": self.reads, "several": self.several, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Gated:
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def prunable(
    model: keras.Model,
    budget: Budget | None = None,
    *,
    fixed: Fixed = (),
    multiple_of: int = 1,
    min_channels: float = 1,
) -> keras.Model:
    """Put gates into a model so that `PruneCallback` can prune it while it trains.

    Args:
        model: A built Sequential or functional Keras model, channels_last, with or without trained weights. It is not
            changed, and its weights are copied.
        budget: What the small model may cost; `None` or an empty `Budget` prunes nothing.
        fixed: Layers (or names of layers or of nested models, or a predicate that takes a layer) whose channels are
            all kept; or "unsupported", which keeps the channels that touch a layer without a rule.
        multiple_of: The kept channels a group are a multiple of this, or all of them; 4 or 8 suit SIMD kernels.
        min_channels: Channels that stay in each group at least: a number, or below 1 a part of the group.

    Returns:
        An ordinary functional model, not compiled, that predicts what `model` predicts.

    Raises:
        UnsupportedLayer: A layer whose channels this package has no rule for.
        BudgetError: A budget below what is left with every group of channels at its smallest.
        ValueError: Not such a model, or a layer in `fixed` that it does not have.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(),
        ...                           keras.layers.Dense(2)])
        >>> gated = prunable(model, Budget(flash="3KiB"))
        >>> get_mask(gated)
        array([ True,  True,  True,  True])
    """
    budget = Budget() if budget is None else budget
    if not isinstance(budget, Budget):
        raise ValueError(f'Expected a Budget, for example Budget(arena="64KiB"). Received: {budget!r}')
    graph = graphs.read(model)
    if any(isinstance(call.layer, ChannelGates) for call in graph.calls):
        raise ValueError(f"The model {model.name!r} already has gates; pass it to fit, or strip it first.")
    channels = analyze_graph(graph, limits_for(graph, fixed, multiple_of, min_channels))
    require_feasible(resource_model(channels), budget)
    return gate(channels, budget)


def gate(channels: Channels, budget: Budget) -> keras.Model:
    """Rebuild the model with a `Gated` layer wherever prunable channels are mixed, and copy the weights."""
    gates: list[Any] = []
    made: dict[int, keras.layers.Layer] = {}
    flows = {id(call): flow for call, flow in zip(channels.graph.calls, channels.flows, strict=True)}

    def add_gates(inputs: Any) -> None:
        limits = dataclasses.asdict(channels.limits)
        layer = ChannelGates(channels.count, dataclasses.asdict(budget), limits, name="channel_gates")
        gates.append(layer(inputs[0]))

    def make(call: graphs.Call) -> Any:
        layer = made.get(id(call.layer))
        if layer is None:
            flow = flows[id(call)]
            reads = {
                name: (axis, runs_of(flow.weights[name][axis], channels.count)) for name, axis in flow.reads.items()
            }
            layer = graphs.copy_layer(call)
            if any(start < channels.count for _, runs in reads.values() for start, _ in runs):
                layer = Gated(layer, reads, several=len(call.inputs) > 1)
            made[id(call.layer)] = layer
        return _reading(layer, gates[0]) if isinstance(layer, Gated) else layer

    gated = graphs.replay(channels.graph, make, add_gates)
    for call in channels.graph.calls:
        if isinstance(call.layer, keras.Layer):
            new = made[id(call.layer)]
            (new.layer if isinstance(new, Gated) else new).set_weights(call.layer.get_weights())
    return gated


def _reading(layer: Gated, gates: Any) -> Any:
    """A gated layer as a function of what the layer in it takes."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return layer(list(args) if layer.several else args[0], gates, **kwargs)

    return run


def ungated(model: keras.Model) -> graphs.Graph:
    """Return the graph of a gated model as it was before the gates came in, with its own layers and weights."""
    graph = graphs.read(model)
    calls = []
    for call in graph.calls:
        if isinstance(call.layer, Gated):
            args = tuple(call.args[0]) if call.layer.several else call.args[:1]
            call = dataclasses.replace(call, layer=call.layer.layer, args=args)
        if not isinstance(call.layer, ChannelGates):
            calls.append(call)
    return graphs.in_run_order(dataclasses.replace(graph, calls=tuple(calls)))


def channels_of(gated: keras.Model) -> Channels:
    """Label the channels of a gated model as `prunable` did."""
    return analyze_graph(ungated(gated), gates_of(gated).limits)


def gates_of(model: keras.Model) -> ChannelGates:
    """Return the layer that holds the gates of a model.

    Raises:
        ValueError: The model has none.
    """
    layers = model.layers if isinstance(model, keras.Model) else []
    found = [layer for layer in layers if isinstance(layer, ChannelGates)]
    if not found:
        raise ValueError(
            f"Expected a model that tfmcu_prune.prunable(model, budget) returned. Received: {model!r}, without gates."
        )
    return found[0]


def get_mask(gated: keras.Model) -> Array:
    """Return the mask over the prunable channels of a gated model: bool, shape (channels,), True = kept."""
    return np.asarray(keras.ops.convert_to_numpy(gates_of(gated).mask)) > 0


def set_mask(gated: keras.Model, mask: Any) -> None:
    """Put a mask into a gated model.

    Args:
        gated: What `prunable` returned.
        mask: bool, shape (channels,) as `get_mask` returns it, True = kept; each group must keep its minimum.

    Raises:
        ValueError: Another shape or dtype, or a group with fewer channels than its minimum.
    """
    layer, mask = gates_of(gated), np.asarray(mask)
    if mask.shape != (layer.count,) or mask.dtype != bool:
        raise ValueError(
            f"Expected a bool mask of shape {(layer.count,)}. Received: {mask.dtype} of shape {mask.shape}."
        )
    for group in channels_of(gated).groups:
        kept = int(mask[group.channels].sum())
        if kept < group.minimum:
            raise ValueError(
                f"The mask leaves {kept} of the {group.size} channels of the group {group.name!r}; "
                f"at least {group.minimum} must stay."
            )
    layer.mask.assign(mask.astype("float32"))
    layer.final = None


def settle(gated: keras.Model) -> None:
    """Put the frozen mask back if other weights have been loaded since, so that the budget holds all the same."""
    layer = gates_of(gated)
    if layer.final is not None and not np.array_equal(layer.final, get_mask(gated)):
        logging.warning(
            "tfmcu_prune: weights from before the freeze of the mask were restored (EarlyStopping with "
            "restore_best_weights?). The final mask is put on them, and they are not trained for it. "
            "Use EarlyStopping(start_from_epoch=...) with an epoch after the freeze."
        )
        layer.mask.assign(layer.final.astype("float32"))
        layer.price.assign(np.zeros(layer.count))


def runs_of(labels: Array | None, count: int) -> list[list[int]]:
    """Return labels as runs [start, stop) of consecutive numbers; `count` (kept for good) repeats in a run."""
    labels = np.asarray(labels)
    step = np.where(labels[:-1] == count, labels[1:] == count, (labels[1:] == labels[:-1] + 1) & (labels[1:] < count))
    cuts = np.flatnonzero(~step) + 1
    return [[int(part[0]), int(part[0]) + len(part)] for part in np.split(labels, cuts)]


def take_runs(gates: Any, runs: Sequence[Sequence[int]]) -> Any:
    """Return the gates named by `runs_of`, shape (labels,)."""
    count = gates.shape[0]
    parts = [ops.ones((stop - start,), gates.dtype) if start == count else gates[start:stop] for start, stop in runs]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts)
