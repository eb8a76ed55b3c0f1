"""Days on which trainings go wrong, or have nothing to do: a clear word, and no mask that NaN has chosen."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tiny

import tfmcu_prune
from tfmcu_prune import Budget, BudgetError, channel_groups, shrinking
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.resources import floor


class _Breaks(keras.callbacks.Callback):
    """Puts a number into a weight behind a step, and the old weights back behind a later one."""

    def __init__(self, value: float, at: int, until: int | None = None, layer: str = "hidden12") -> None:
        super().__init__()
        self.value, self.at, self.until, self.layer, self.step = value, at, until, layer, 0
        self.masks: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        self.masks.append(tfmcu_prune.get_mask(self.model))
        if self.step == self.at:
            self.before = self.model.get_weights()
            kernel = next(w for w in self.model.trainable_weights if w.path.endswith(f"{self.layer}/kernel"))
            kernel.assign(kernel * self.value)
        elif self.step == self.until:
            self.model.set_weights(self.before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_chooses_no_mask(value: float, caplog: pytest.LogCaptureFixture) -> None:
    gated, breaks = tiny.gated(), _Breaks(value, 5)
    with pytest.raises(
        ValueError, match=r"not pruned to its budget, since not all .* are finite.*Lower the learning rate"
    ):
        tiny.fit(gated, callbacks=[tiny.pruning(2, 18), breaks])
    assert 0 < breaks.masks[4].sum() < 20
    assert all(np.array_equal(mask, breaks.masks[4]) for mask in breaks.masks[4:])
    assert "the mask stays as it is at step 6, since not all the model's weights" in caplog.text


def test_infinite_weights_at_the_end() -> None:
    """No step makes NaN of them before the mask has to be chosen."""
    gated = tiny.gated()
    with pytest.raises(ValueError, match="not pruned to its budget, since not all"):
        tiny.fit(gated, callbacks=[tiny.pruning(2, 40), _Breaks(np.inf, 4 * tiny.STEPS)])


def test_nan_that_passes() -> None:
    """Weights that a callback puts back, and an end of the ramp in between."""
    gated = tiny.gated()
    tiny.fit(gated, callbacks=[tiny.pruning(2, 12), _Breaks(np.nan, 10, 14)])
    assert tiny.is_within(gated)
    assert gates_of(gated).final is not None


def test_nan_behind_the_freeze_changes_no_mask() -> None:
    """And stops the training as Keras' own callback is asked to."""
    gated, breaks = tiny.gated(), _Breaks(np.nan, 15, layer="out")  # on some processors a ReLU makes a zero of it
    history = tiny.fit(gated, callbacks=[tiny.pruning(2, 12), breaks, keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 3
    assert tiny.is_within(gated)
    assert np.array_equal(tfmcu_prune.get_mask(gated), breaks.masks[11])


def test_nan_stops_a_training_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking._Relay, "_pays", tiny.always)
    gated, nan = tiny.gated(keras.optimizers.SGD(1e30)), keras.callbacks.TerminateOnNaN()
    with pytest.raises(ValueError, match="the training has diverged"):
        tiny.fit(gated, run=tfmcu_prune.fit, callbacks=[tiny.pruning(), nan])
    assert tfmcu_prune.get_mask(gated).all()


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["dead", "all equal"])
def test_nothing_to_choose_by(value: float, caplog: pytest.LogCaptureFixture) -> None:
    """A network without a gradient, or a salience that says nothing: the budget holds, and a word about it."""
    gated = tiny.gated()
    if value:
        callback = tiny.pruning(salience=lambda channels, _: np.full(channels.count, value))
    else:
        callback = tiny.pruning()
        for weight in gated.trainable_weights:
            weight.assign(np.zeros(weight.shape))
    history = tiny.fit(gated, callbacks=[callback])
    assert tiny.is_within(gated)
    assert np.isfinite(history.history["loss"]).all()
    assert "all channels of 'hidden12', 'hidden8' have the same salience" in caplog.text
    x = tiny.data()[0]
    small, whole = (model.predict(x, verbose=0) for model in (tfmcu_prune.strip(gated), gated))
    np.testing.assert_allclose(small, whole, atol=1e-6)


def test_a_budget_that_is_met_already(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing goes, the loss has no price in it, the model is measured once, and trains as without the callback."""
    plain = tiny.network()
    full = tiny.form(tfmcu_prune.prunable(plain))
    budget = Budget(arena=full.arena, flash=full.flash, macs=full.macs)
    measured, weights = [], []

    def measure(gated: keras.Model) -> tfmcu_prune.Resources:
        measured.append(gated)
        return tiny.form(gated)

    for callbacks in ([], [tfmcu_prune.PruneCallback(measure=measure)]):
        gated = tfmcu_prune.prunable(plain, budget)
        gated.compile("sgd", "mse", jit_compile=False)
        history = tiny.fit(gated, callbacks=callbacks)
        weights.append([keras.ops.convert_to_numpy(weight) for weight in gated.trainable_weights])
    assert set(history.history["channels"]) == {20}
    assert len(measured) == 1
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    assert "same salience" not in caplog.text


def test_budgets_that_cannot_be_met() -> None:
    """One below the floor beside others that are generous; the error names that one, and comes before training."""
    model = tiny.network()
    least = floor(resource_model(channel_groups(model)))
    with pytest.raises(BudgetError, match=r"The budget flash=1,561 cannot be met: .* operator 'hidden12'"):
        tfmcu_prune.prunable(model, Budget(arena=1 << 20, flash=least.flash - 1, macs=10**6))
    for name in ("arena", "flash", "macs"):
        tfmcu_prune.prunable(model, Budget(**{name: getattr(least, name)}))


def test_everything_fixed() -> None:
    """An error where something has to go, and one where nothing can."""
    model = tiny.network()
    full = floor(resource_model(channel_groups(model, fixed=lambda _: True)))
    with pytest.raises(BudgetError, match="cannot be met"):
        tfmcu_prune.prunable(model, Budget(macs=full.macs - 1), fixed=lambda _: True)
    with pytest.raises(ValueError, match="no channel that can go, since all are fixed"):
        tfmcu_prune.prunable(model, Budget(macs=full.macs), fixed=lambda _: True)


def test_a_salience_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Expected a salience that returns shape \(20,\).*shape \(2,\)"):
        tiny.fit(tiny.gated(), callbacks=[tiny.pruning(salience=lambda _, gates: gates[:2])])
