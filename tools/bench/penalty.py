"""Two baselines that learn which channels go: straight-through gates under a penalty, and a weighted L1."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmcu_prune import Budget
from tfmcu_prune.allocation import ramp
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import ChannelGates, gates_of
from tfmcu_prune.gating import channels_of
from tfmcu_prune.resources import RESOURCES, evaluate, gradient

OPEN = 0.5  # a straight-through gate is open above this


@keras.saving.register_keras_serializable(package="tfmcu_prune_bench")
class StraightThroughGates(ChannelGates):
    """Gates that are 0 or 1 in the forward pass and get the gradient as if they were not rounded.

    theta = 1 + rate * offset is rounded at 0.5 until the mask is frozen; from then on it is an ordinary gate.

    Source: PIT, Risso et al. 2022 (arXiv 2206.00302).
    """

    rate = 20.0  # makes up for the few steps of a short run

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.learning = self.add_weight(shape=(), initializer="ones", trainable=False, name="learning")

    def call(self, inputs: Any) -> Any:
        theta = 1.0 + self.rate * self.offset
        rounded = theta + ops.stop_gradient(ops.cast(theta > OPEN, "float32") - theta)
        self.add_loss(ops.sum(self.price * rounded) * self.learning)
        return self.mask * ops.where(self.learning > 0, rounded, 1.0 + self.offset)


def straight_through(gated: keras.Model) -> keras.Model:
    """Return a gated model whose gates are `StraightThroughGates`, with the same weights."""

    def replace(layer: keras.Layer) -> keras.Layer:
        kind = StraightThroughGates if isinstance(layer, ChannelGates) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(gated, clone_function=replace)
    for old, new in zip(gated.layers, copy.layers, strict=True):
        if not isinstance(old, ChannelGates):
            new.set_weights(old.get_weights())
    return copy


class Penalty(keras.callbacks.Callback):
    """Prices gates by their marginal costs, with a multiplier a resource that rises while it is over the budget.

        price_c = strength sum_k lambda_k / B_k dR_k / dn_g(c),   lambda_k <- [lambda_k + rate (R_k / B_k(u) - 1)]_+

    R is that of the open gates, B(u) the cubic ramp; with `fixed`, lambda stays 1 (MorphNet). Stops when the mask is
    frozen; list it after PruneCallback.

    Args:
        end: Part of the fit at which the ramp ends.
        strength: Price of the whole network at lambda = 1, in units of the loss.
        rate: Of the multipliers, a step.
        fixed: Keep the multipliers at one.
    """

    def __init__(self, end: float, *, strength: float, rate: float = 0.02, fixed: bool = False) -> None:
        super().__init__()
        self._end, self._strength, self._rate, self._fixed = end, strength, rate, fixed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._forms = resource_model(channels_of(self.model))
        self._start = evaluate(self._forms, self._forms.full())
        self._budget: Budget = gates_of(self.model).budget
        self._lambda = np.ones(3) if self._fixed else np.zeros(3)
        self._step, self._last = 0, self._end * self.params["epochs"] * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step += 1
        layer = gates_of(self.model)
        if layer.final is not None:
            if isinstance(layer, StraightThroughGates) and float(layer.learning) > 0:
                layer.learning.assign(0.0)
                layer.offset.assign(np.zeros(layer.count))
        elif self._step % 4 == 0:
            layer.price.assign(self._prices(np.asarray(ops.convert_to_numpy(layer.offset), float)))

    def _prices(self, offset: Any) -> Any:
        hard = isinstance(gates_of(self.model), StraightThroughGates)
        gates = 1 + StraightThroughGates.rate * offset if hard else 1 + offset
        kept = (gates > OPEN if hard else np.abs(gates) > 0.01).astype(int)
        sizes = np.array([max(1, kept[group.channels].sum()) for group in self._forms.groups])
        now = ramp(self._budget, self._start, self._step / self._last)
        cost = evaluate(self._forms, sizes)
        limits = np.array([float(getattr(now, k) or np.inf) for k in RESOURCES])
        if not self._fixed:
            excess = np.array([getattr(cost, k) for k in RESOURCES]) / limits - 1
            self._lambda = np.maximum(self._lambda + 4 * self._rate * excess, 0)
        start = np.array([getattr(self._start, k) for k in RESOURCES], float)
        slopes = (self._lambda / start) @ gradient(self._forms, sizes)
        prices = np.zeros(len(offset))
        for group, slope in zip(self._forms.groups, slopes, strict=True):
            prices[group.channels] = slope
        return self._strength * prices
