"""The callback that prunes while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune.allocation import allocate, choose, ramp, shadow_prices
from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.channels import Channels
from tfmcu_prune.converter import convert
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.gates import gates_of
from tfmcu_prune.gating import channels_of, get_mask, settle
from tfmcu_prune.regularizer import prices
from tfmcu_prune.resources import ResourceModel, evaluate, over, resource_model
from tfmcu_prune.rules import Array
from tfmcu_prune.salience import weight_norm
from tfmcu_prune.surgery import strip
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.schema import read_model

_UPDATES = 24  # mask updates during the ramp
_CORRECTIONS = 8  # tries to bring the converted file within the budget
_ZERO_POINT = 16  # bytes of a vector with one zero point in a .tflite: length, int64, alignment


class PruneCallback(keras.callbacks.Callback):
    """Prunes a gated model during `fit` so that it ends within its budget.

    From `begin` to `end` the budget falls from what the model costs to what it may cost; every few steps the group
    sizes are projected onto it and the most salient channels are kept. Then the mask is frozen, checked on the
    converted file, and training goes on. `arena`, `flash`, `macs` and `channels` of the current mask are put into
    `logs`, and `price_arena` and so on of each budget: what one per cent more of it would be worth (`shadow_prices`).

    Args:
        begin: Step of this fit at which pruning begins. Default: 10 % of its steps.
        end: Step at which the mask is frozen. Default: 50 % of its steps.
        strength: Price of all the channels on their way out together, in units of the loss; 0 is no regularizer.
        salience: `(channels, gates) -> array`: what each channel is worth.
        allocation: `(resource_model, budget, salience) -> sizes`: how many channels each group keeps.
        regularizer: `(resource_model, mask, target, budget, strength) -> prices`.
        measure: `(gated) -> Resources`: what the model costs at the freeze. Default: `measured`, by converting it.

    Raises:
        ValueError: The model has no gates, or the length of the fit is not known and `end` is not given.
        BudgetError: The budget cannot be met.

    Source: Liberis & Lane 2021 (arXiv 2110.08350) for the idea; the ramp, the concave allocation and the projection are
        those of ../shared/method.md, equations 8 and 10.
    """

    def __init__(
        self,
        begin: int | None = None,
        end: int | None = None,
        *,
        strength: float = 0.1,
        salience: Callable[[Channels, Array], Array] = weight_norm,
        allocation: Callable[[ResourceModel, Budget, Array], Array] = allocate,
        regularizer: Callable[[ResourceModel, Array, Array, Budget, float], Array] = prices,
        measure: Callable[[keras.Model], Resources] | None = None,
    ) -> None:
        super().__init__()
        if begin is not None and end is not None and not 0 <= begin <= end:
            raise ValueError(f"Expected 0 <= begin <= end, in steps of the fit. Received: begin={begin}, end={end}")
        self.begin, self.end, self.strength = begin, end, strength
        self.salience, self.allocation, self.regularizer = salience, allocation, regularizer
        self.measure = measured if measure is None else measure

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        gated = self.model
        self._channels = channels_of(gated)
        self._resources = resource_model(self._channels)
        self._start = evaluate(self._resources, self._resources.full())
        self._budget = gates_of(gated).budget
        self._step = self._epoch_start = self._first = self._next = 0
        self._every = 1
        self._last: int | None = None
        self._frozen = False
        steps = self.params.get("steps")
        if self.end is not None or steps is not None:
            self._plan(self.params["epochs"] * steps if steps is not None else 0)
        elif self.params["epochs"] <= 1:
            raise ValueError(
                "PruneCallback cannot work out its schedule: the data does not tell its number of steps. "
                "Pass steps_per_epoch to fit, or PruneCallback(begin=..., end=...) in steps."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_start = self._step

    def is_due(self, batch: int) -> bool:
        """Whether the mask changes behind a batch, counted within its epoch."""
        return not self._frozen and self._last is not None and self._epoch_start + batch + 1 >= self._next

    def cost(self, mask: Array) -> Resources:
        """Return the resources under a mask, bool, shape (channels,), in closed form."""
        return evaluate(self._resources, self._resources.sizes(mask))

    def cut(self, kept: Array) -> None:
        """Take note that only the channels in `kept`, bool, shape (channels,), are still there to choose from."""
        self._resources = self._resources.within(kept)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        due, last = self.is_due(batch), self._last or 0
        self._step = self._epoch_start + batch + 1
        if due and self._step >= last:
            self._freeze()
        elif due:
            self._update()
            self._next = min(self._step + self._every, last)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._last is None:  # the first epoch has told how many steps one has
            self._plan(self.params["epochs"] * self._step)
        if logs is not None:
            mask = get_mask(self.model)
            now = self.cost(mask)
            logs.update(arena=now.arena, flash=now.flash, macs=now.macs, channels=int(mask.sum()))
            prices = shadow_prices(self._resources, self._budget, self._resources.sizes(mask))
            logs.update((f"price_{name}", price) for name, price in prices.items())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._frozen:  # stopped early, or `end` lies behind the last step
            self._freeze()
        settle(self.model)

    def _plan(self, steps: int) -> None:
        begin = max(self._step, steps // 10) if self.begin is None else self.begin
        self._last = max(begin, steps // 2) if self.end is None else self.end
        if begin > self._last:
            raise ValueError(f"Expected begin <= end, in steps of the fit. Received: begin={begin}, end={self._last}")
        self._first, self._next = begin, max(begin, 1)
        self._every = max(1, (self._last - begin) // _UPDATES)

    def _update(self) -> None:
        """Project the mask onto the budget of this moment, and price the channels that are to go next."""
        progress = (self._step - self._first) / max((self._last or 0) - self._first, 1)
        worth = self._worth()
        mask = self._choose(worth, ramp(self._budget, self._start, progress))
        final = self._choose(worth, self._budget)
        layer = gates_of(self.model)
        layer.mask.assign(mask.astype("float32"))
        layer.price.assign(self.regularizer(self._resources, mask, final, self._budget, self.strength))

    def _worth(self) -> Array:
        layer = gates_of(self.model)
        return self.salience(self._channels, 1 + keras.ops.convert_to_numpy(layer.offset))

    def _choose(self, worth: Array, budget: Budget) -> Array:
        return choose(self._resources, worth, self.allocation(self._resources, budget, worth))

    def _freeze(self) -> None:
        """Fix the mask for good: the budget holds for the converted file, not only for the closed form."""
        layer, worth = gates_of(self.model), self._worth()
        budget = self._budget
        for attempt in range(_CORRECTIONS):
            mask = self._choose(worth, budget)
            layer.mask.assign(mask.astype("float32"))
            layer.final = None
            real = self.measure(self.model)
            form = self.cost(mask)
            if not over(real, self._budget) and (attempt or not self._budget.limits()):
                break
            budget = _corrected(self._budget, form, real)
        else:
            raise BudgetError(
                f"The converted model does not come within {self._budget}: it takes {real} where {form} was expected."
            )
        layer.price.assign(np.zeros(layer.count))
        layer.final, self._frozen = mask, True
        logging.info("tfmcu_prune: %d of %d channels are kept; %s", mask.sum(), len(mask), real)


def measured(gated: keras.Model) -> Resources:
    """Return what the stripped model costs as a converted file."""
    return converted_cost(strip(gated))


def converted_cost(model: keras.Model) -> Resources:
    """Return what a model, trained or not, will cost as a converted file once it is trained.

    Weights that are all zero (biases, say) would vanish from the file and come back with training, so they are filled
    with numbers: `model` is no longer the same afterwards.
    """
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not keras.ops.convert_to_numpy(weight).any():
            weight.assign(rng.uniform(0.01, 0.02, weight.shape) * rng.choice((-1, 1), weight.shape))
    shapes = [(2, *tensor.shape[1:]) for tensor in model.inputs]
    file = convert(model, calibration=[rng.uniform(-1, 1.3, shape).astype("float32") for shape in shapes])
    fp = footprint(file)
    return Resources(fp.arena, fp.flash + _chance(file), fp.macs)


def _chance(file: bytes) -> int:
    """Bytes that a file saves because zero points happen to be equal, which other weights would make different.

    That of a tensor after a ReLU is -128 with any weights; that of the logits may happen to be.
    """
    graph = read_model(file).main
    logits = {index for operator in graph.operators if operator.name == "SOFTMAX" for index in operator.inputs}
    activations = {i: t.zero_point for i, t in enumerate(graph.tensors) if t.quantized and not t.constant}
    points = [point for index, point in activations.items() if point != -128 or index in logits]
    return _ZERO_POINT * (len(points) - len(set(points) - {-128}))


def _corrected(budget: Budget, form: Resources, real: Resources) -> Budget:
    """The budget for the closed form under which the file meets `budget`."""
    limits = budget.limits()
    return Budget(**{name: max(limits[name] - getattr(real, name) + getattr(form, name), 1) for name in limits})
