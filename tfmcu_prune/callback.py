"""The callback that prunes while a model trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune import learned
from tfmcu_prune.allocation import allocate, choose, ramp, shadow_prices
from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.calibration import sample_arrays
from tfmcu_prune.channels import Channels
from tfmcu_prune.fitting import fitted, measured
from tfmcu_prune.forms import ResourceModel, resource_model
from tfmcu_prune.gates import SizedGates, gated_in, gates_of
from tfmcu_prune.gating import channels_of, get_mask, settle
from tfmcu_prune.reconstruction import reconstruct
from tfmcu_prune.regularizer import prices
from tfmcu_prune.resources import evaluate
from tfmcu_prune.rules import Array
from tfmcu_prune.salience import outgoing_norm

_UPDATES = 24  # mask updates during the ramp
_NEW, _TRAINED = (0.1, 0.5), (0.0, 0.3)  # begin and end, as parts of the steps, of new networks and of trained ones
_DIVERGED = (
    "not all the model's weights (or what the salience makes of them) are finite: the training has diverged. Lower the "
    "learning rate, clip the gradients (clipnorm), or go on from an earlier checkpoint."
)


class PruneCallback(keras.callbacks.Callback):
    """Prunes a gated model during `fit` so that it ends within its budget.

    From `begin` to `end` the budget falls from what the model costs to what it may cost; every few steps the group
    sizes are projected onto it, none below what it has at the end, and the most salient channels are kept. Then the
    mask is frozen, checked on the converted file, and training goes on. `arena`, `flash`, `macs` and `channels` of the
    current mask are put into `logs`, and `price_arena` and so on of each budget: what one per cent more of it would be
    worth (`shadow_prices`).

    The state of the pruning is in the model's weights: a fit that was killed goes on from `BackupAndRestore` or from a
    saved model with `initial_epoch=` as if nothing had happened, and a frozen mask stays. While weights are NaN or
    infinite no mask is chosen. The model in training may also be one that holds the gated model among its layers.

    Args:
        begin: Step at which pruning begins, counted from its first epoch. Default: of a network that `prunable` was
            given trained, with biases or statistics as no initializer makes them, the first; of a new one 10 % of the
            steps from there on, or a fifth of `end` where data does not tell how many there are.
        end: Step at which the mask is frozen. Default: 30 % of the steps of a trained network, 50 % of a new one. Each
            was the more accurate where it is the default, in most cells of tools/benchmark.py (scenarios B and A).
        strength: Price of all the channels on their way out together, in units of the loss. At the default, 0, they go
            without one, which was more accurate in tools/benchmark.py (its methods ours and ours:strength=...).
        salience: `(channels, gates) -> array`: what each channel is worth. The functions of `tfmcu_prune.salience`;
            the default did best on `val` over the cells of tools/benchmark.py together (ours, ours:salience=...).
        allocation: `(resource_model, budget, salience) -> sizes`: how many channels each group keeps. Where
            `prunable(learn_sizes=True)` has sizes trained, it takes what was learned as `scale=`, as `allocate` does.
        regularizer: `(resource_model, mask, target, budget, strength) -> prices`.
        measure: `(gated) -> Resources`: what the model costs at the freeze. Default: `measured`, by converting it.
        calibration: Inputs as those of the training, as in `convert`, 500 at most. With them, whenever channels go, the
            kernels that read them are changed so that the channels that stay make up for them
            (`tfmcu_prune.reconstruction`): 25 passes of these samples through the model in all, up to 47 where there
            are fewer than 200 steps from `begin` to `end`. `None`: they are left to the training, which was less
            accurate in tools/benchmark.py (ours:calibration=0).

    Raises:
        ValueError: The model has no gates, the length of the fit is not known and `end` is not given, or the weights
            are not finite when the training ends and the mask has to be chosen.
        BudgetError: The budget cannot be met.

    Source: Liberis & Lane 2021 (arXiv 2110.08350) for the idea; the ramp and the projection are this project's, the
        concave allocation is that of `tfmcu_prune.allocation`.
    """

    def __init__(
        self,
        begin: int | None = None,
        end: int | None = None,
        *,
        strength: float = 0.0,
        salience: Callable[[Channels, Array], Array] = outgoing_norm,
        allocation: Callable[..., Array] = allocate,
        regularizer: Callable[[ResourceModel, Array, Array, Budget, float], Array] = prices,
        measure: Callable[[keras.Model], Resources] | None = None,
        calibration: Any = None,
    ) -> None:
        super().__init__()
        if begin is not None and end is not None and not 0 <= begin <= end:
            raise ValueError(f"Expected 0 <= begin <= end, in steps of the fit. Received: begin={begin}, end={end}")
        self.begin, self.end, self.strength = begin, end, strength
        self.salience, self.allocation, self.regularizer = salience, allocation, regularizer
        self.measure = measured if measure is None else measure
        self.calibration = calibration

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        gated = gated_in(self.model)
        self._channels = channels_of(gated)
        self._resources = self._left = resource_model(self._channels)
        self._start = evaluate(self._resources, self._resources.full())
        self._budget = gates_of(gated).budget
        self._samples = None if self.calibration is None else sample_arrays(gated, self.calibration)
        self._began: int | None = None  # its first epoch; until one begins weights may still be restored
        self._steps = self.params.get("steps") or 0  # of an epoch; 0: not known yet
        self._step = self._epoch_start = self._first = self._next = 0
        self._every = 1
        self._last: int | None = None
        self._frozen = False
        if self.params.get("steps") is None and self.end is None and self.params["epochs"] <= 1:
            raise ValueError(
                "PruneCallback cannot work out its schedule: the data does not tell its number of steps. "
                "Pass steps_per_epoch to fit, or PruneCallback(begin=..., end=...) in steps."
            )
        if isinstance(gates_of(gated), SizedGates) and "scale" not in inspect.signature(self.allocation).parameters:
            raise ValueError(
                "Expected an allocation that takes `scale`, what was learned, as tfmcu_prune.allocation.allocate does, "
                f"since the model is prunable(learn_sizes=True). Received: {self.allocation!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._began is None:
            self._take_up(epoch)
        self._epoch_start = (epoch - (self._began or 0)) * self._steps if self._steps else self._step

    def is_due(self, batch: int) -> bool:
        """Whether the mask changes behind a batch, counted within its epoch."""
        return not self._frozen and self._last is not None and self._behind(batch) >= self._next

    def epochs_until_frozen(self) -> int:
        """Return in how many epochs from here on the mask still changes; 0 where that is not known yet."""
        return 0 if self._frozen or self._last is None else -(-(self._last - self._step) // max(self._steps, 1))

    def cost(self, mask: Array) -> Resources:
        """Return the resources under a mask, bool, shape (channels,), in closed form."""
        return evaluate(self._resources, self._resources.sizes(mask))

    def cut(self, kept: Array) -> None:
        """Take note that only the channels in `kept`, bool, shape (channels,), are still there to choose from."""
        self._left = self._resources.within(kept)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        due, last = self.is_due(batch), self._last or 0
        self._step = self._behind(batch)
        if not due:
            return
        worth = self._worth()
        self._next = self._after(self._step)
        if not np.isfinite(worth).all():
            logging.warning("tfmcu_prune: the mask stays as it is at step %d, since %s", self._step, _DIVERGED)
        elif self._step >= last:
            self._freeze(worth)
        else:
            self._update(worth)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        gated = gated_in(self.model)
        if not self._steps:  # this epoch has told how many steps one has
            self._steps = self._step
            gates_of(gated).clock.assign([epoch, self._steps])
            self._plan(epoch)
        if logs is not None:
            mask = get_mask(gated)
            now = self.cost(mask)
            logs.update(arena=now.arena, flash=now.flash, macs=now.macs, channels=int(mask.sum()))
            prices = shadow_prices(self._resources, self._budget, self._resources.sizes(mask))
            logs.update((f"price_{name}", price) for name, price in prices.items())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._began is None:
            logging.warning("tfmcu_prune: nothing was pruned, since the fit had no epoch to train.")
            return
        if not self._frozen:  # stopped early, or `end` lies behind the last step
            worth = self._worth()
            if not np.isfinite(worth).all():
                raise ValueError(f"The model is not pruned to its budget, since {_DIVERGED}")
            before = get_mask(gated_in(self.model))
            self._freeze(worth)
            self._say_untrained(int((before & ~get_mask(gated_in(self.model))).sum()))
        settle(gated_in(self.model))

    def _behind(self, batch: int) -> int:
        """The step behind a batch; of `steps_per_execution` Keras counts those that the epoch no longer has too."""
        return self._epoch_start + min(batch + 1, self._steps or batch + 1)

    def _take_up(self, epoch: int) -> None:
        """Begin, or go on where the model's weights say that a pruning in an earlier fit has come to."""
        layer = gates_of(gated_in(self.model))
        began, steps = map(int, keras.ops.convert_to_numpy(layer.clock))
        goes_on = steps > 0 and epoch > began
        self._began = began if goes_on else epoch
        self._steps = self._steps or (steps if goes_on else 0)
        self._step = (epoch - self._began) * self._steps
        layer.clock.assign([self._began, self._steps])
        if self.end is not None or self._steps:
            self._plan(self._began)
        self._frozen = bool(keras.ops.convert_to_numpy(layer.frozen))
        if self._frozen:
            layer.final = get_mask(gated_in(self.model))

    def _plan(self, began: int) -> None:
        """Lay the steps of the updates down; of data that does not tell its length the first epoch only counts."""
        told = self.params.get("steps") is not None
        total = (self.params["epochs"] - began) * self._steps if told or self.end is None else 0
        earliest = 0 if told or self.end is not None else self._steps
        trained = gates_of(gated_in(self.model)).trained
        first, last = _TRAINED if trained else _NEW
        early = first * total if told or self.end is None else first / last * self.end
        begin = max(earliest, round(early)) if self.begin is None else self.begin
        self._last = max(begin, round(last * total)) if self.end is None else self.end
        if begin > self._last:
            raise ValueError(f"Expected begin <= end, in steps of the fit. Received: begin={begin}, end={self._last}")
        self._first, self._every = begin, max(1, (self._last - begin) // _UPDATES)
        self._next = self._after(self._step)
        kind = "trained" if trained else "new"
        logging.info("tfmcu_prune: a %s network, pruned from step %d to step %d", kind, self._first, self._last)

    def _after(self, step: int) -> int:
        """The step of the next update behind a step: only a plan, so that a fit that goes on finds the same ones."""
        first, last = max(self._first, 1), self._last or 0
        if step < first:
            return first
        later = first + ((step - first) // self._every + 1) * self._every
        return min(later, last) if step < last else step + self._every

    def _update(self, worth: Array) -> None:
        """Project the mask onto the budget of this moment, and price the channels that are to go next."""
        progress = (self._step - self._first) / max((self._last or 0) - self._first, 1)
        now = ramp(self._budget, self._start, progress)
        final = self._choose(worth, self._budget)
        mask = self._choose(worth, now) | final  # a group may be smaller on the way than at the end, and cuts are final
        gated = gated_in(self.model)
        layer = gates_of(gated)
        self._put(mask, get_mask(gated))
        layer.price.assign(self.regularizer(self._resources, mask, final, self._budget, self.strength))
        if isinstance(layer, SizedGates):
            learned.learn(layer, self._left, worth, self._left.sizes(mask), now, self.strength)

    def _put(self, mask: Array, before: Array) -> None:
        """Put a mask in; with samples the kernels, made for the mask before it, are changed for it."""
        gated = gated_in(self.model)
        if self._samples is not None and not np.array_equal(mask, before):
            reconstruct(gated, self._samples, before, mask)
        gates_of(gated).mask.assign(mask.astype("float32"))

    def _worth(self) -> Array:
        layer = gates_of(gated_in(self.model))
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is dealt with by those who ask
            worth = np.asarray(self.salience(self._channels, 1 + keras.ops.convert_to_numpy(layer.offset)))
        if worth.shape != (layer.count,):
            raise ValueError(
                f"Expected a salience that returns shape {(layer.count,)}, a number a channel. "
                f"Received: {self.salience!r} with shape {worth.shape}"
            )
        return worth

    def _choose(self, worth: Array, budget: Budget) -> Array:
        layer = gates_of(gated_in(self.model))
        scale = {"scale": learned.scale_of(layer)} if isinstance(layer, SizedGates) else {}
        return choose(self._left, worth, self.allocation(self._left, budget, worth, **scale))

    def _freeze(self, worth: Array) -> None:
        """Fix the mask for good: the budget holds for the converted file, not only for the closed form."""
        gated = gated_in(self.model)
        layer, before = gates_of(gated), get_mask(gated)
        mask, real = fitted(self._budget, lambda budget: self._choose(worth, budget), self.cost, self._measured)
        self._put(mask, before)
        layer.final, self._frozen = mask, True
        layer.rest()
        self._say_ties(mask, worth)
        logging.info("tfmcu_prune: %d of %d channels are kept; %s", mask.sum(), len(mask), real)

    def _measured(self, mask: Array) -> Resources:
        gated = gated_in(self.model)
        layer = gates_of(gated)
        layer.mask.assign(mask.astype("float32"))
        layer.final = None
        return self.measure(gated)

    def _say_untrained(self, gone: int) -> None:
        if gone:
            logging.warning(
                "tfmcu_prune: the training ended at step %d, before the mask was to be frozen (at step %s), so %d "
                "channels go behind its end and nothing is trained after them. Train longer, pass an earlier "
                "PruneCallback(end=...), or EarlyStopping(start_from_epoch=...) with an epoch after the freeze.",
                self._step, self._last, gone,
            )  # fmt: skip

    def _say_ties(self, mask: Array, worth: Array) -> None:
        parts = [group for group in self._left.groups if not mask[group.channels].all()]
        tied = [group.name for group in parts if np.ptp(worth[group.channels]) == 0]
        if tied:
            logging.warning(
                "tfmcu_prune: all channels of %s have the same salience, so the first ones of each group are kept. "
                "Is this part of the network dead or not trained yet?",
                ", ".join(map(repr, tied)),
            )
