"""The Keras layers that hold and apply channel masks.

Importing keras imports this module once the package is imported, so that files of gated models load; it imports none
of the modules that import keras before it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmcu_prune.budget import Budget, Limits

Array = np.ndarray
_REGISTER = keras.saving.register_keras_serializable(package="tfmcu_prune")


@_REGISTER
class ChannelGates(keras.layers.Layer):
    """Holds the state of the pruning of a whole model: one gate a prunable channel.

    The output, float32 of shape (count,), is `mask * (1 + offset)`: the hard mask times what the optimizer learns.
    While it trains it adds the resource-aware regularizer `sum_c price_c |gate_c|` to the loss. `clock` holds the epoch
    in which the pruning began and the steps of an epoch (0: it has not begun), `frozen` whether the mask is final.

    Args:
        count: Number of prunable channels.
        budget: Fields of the `Budget` that `PruneCallback` reaches.
        limits: Fields of the `Limits` that the user asked for.
        trained: Whether the model that the gates were put into had been trained.
    """

    def __init__(
        self,
        count: int,
        budget: Mapping[str, int | None],
        limits: Mapping[str, Any] | None = None,
        *,
        trained: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.count, self.trained = count, trained
        self.budget = Budget(**budget)
        limits = limits or {}
        self.limits = Limits(**{**limits, "fixed": tuple(limits.get("fixed", ()))})
        self.final: Array | None = None  # the mask that PruneCallback froze, if it did

    @property
    def channelwise(self) -> list[keras.Variable]:
        """The weights with a number a channel."""
        return [self.mask, self.price, self.offset]

    def build(self, input_shape: Any) -> None:
        shape = (self.count,)
        self.mask = self.add_weight(shape=shape, initializer="ones", trainable=False, name="mask")
        self.price = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="price")
        self.clock = self.add_weight(shape=(2,), dtype="int32", initializer="zeros", trainable=False, name="clock")
        self.frozen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="frozen")
        self.offset = self.add_weight(shape=shape, initializer="zeros", name="offset")

    def rest(self) -> None:
        """Let nothing but the task loss act on the gates: the mask is final."""
        self.price.assign(np.zeros(self.count))
        self.frozen.assign(1)

    def call(self, inputs: Any) -> Any:
        gates = self.mask * (1.0 + self.offset)
        self.add_loss(ops.sum(self.price * ops.abs(gates)))
        return gates

    def compute_output_shape(self, input_shape: Any) -> tuple[int, ...]:
        return (self.count,)

    def get_config(self) -> dict[str, Any]:
        budget, limits = dataclasses.asdict(self.budget), dataclasses.asdict(self.limits)
        config = {"count": self.count, "budget": budget, "limits": limits, "trained": self.trained}
        return {**super().get_config(), **config}


@_REGISTER
class SizedGates(ChannelGates):
    """Gates of groups whose sizes are trained too, each as the logarithm of its deviation from the allocation.

    The output is that of `ChannelGates`; what is added to it, and to the loss, is 0 in the forward pass and gives
    `deviations` the gradient `sum_c share_c dL/dgate_c + slope_g`. `tfmcu_prune.learned` sets `share` and `slope`.

    Args:
        count: Number of prunable channels.
        budget: Fields of the `Budget` that `PruneCallback` reaches.
        limits: Fields of the `Limits` that the user asked for.
        groups: Number of groups.
    """

    def __init__(
        self, count: int, budget: Mapping[str, int | None], limits: Any = None, *, groups: int, **kwargs: Any
    ) -> None:
        super().__init__(count, budget, limits, **kwargs)
        self.groups = groups

    @property
    def channelwise(self) -> list[keras.Variable]:
        return [*super().channelwise, self.owner, self.share]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        count, groups = (self.count,), (self.groups,)
        self.owner = self.add_weight(shape=count, dtype="int32", initializer="zeros", trainable=False, name="owner")
        self.share = self.add_weight(shape=count, initializer="zeros", trainable=False, name="share")
        self.slope = self.add_weight(shape=groups, initializer="zeros", trainable=False, name="slope")
        self.log_sizes = self.add_weight(shape=groups, initializer="zeros", name="log_sizes")

    def rest(self) -> None:
        super().rest()
        for weight in (self.share, self.slope):
            weight.assign(np.zeros(weight.shape))

    def deviations(self) -> Any:
        """Return `log_sizes` less their mean, shape (groups,): all groups together are the budget's business."""
        return self.log_sizes - ops.mean(self.log_sizes)

    def call(self, inputs: Any) -> Any:
        now = self.deviations()
        moved = now - ops.stop_gradient(now)
        self.add_loss(ops.sum(self.slope * moved))
        return super().call(inputs) + self.share * ops.take(moved, self.owner)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


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
            kernel = operator.attrgetter(name)(self.layer)
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


def gated_in(model: keras.Model) -> keras.Model:
    """Return a gated model, or the one that a model in training (a distillation, say) holds among its layers."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return next((one for one in (model, *inner) if any(isinstance(i, ChannelGates) for i in one.layers)), model)


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
