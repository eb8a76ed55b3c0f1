"""Learned sizes: every gradient against finite differences, and a task that wants other sizes than the allocation."""

from __future__ import annotations

from pathlib import Path

import keras
import nets
import numpy as np
import pytest
import tiny
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import Budget
from tfmcu_prune.allocation import allocate, rank_globally, shadow_prices
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import SizedGates, gates_of
from tfmcu_prune.gating import channels_of
from tfmcu_prune.learned import learn, resource_slope, scale_of, soft_mask
from tfmcu_prune.resources import evaluate, over


@pytest.mark.parametrize("size", [1, 2.5, 6, 9])
def test_the_soft_mask_has_its_size_and_the_derivative_by_it(size: float) -> None:
    worth = np.random.default_rng(0).uniform(0.1, 3, 10)
    soft, slope = soft_mask(worth, size)
    assert soft.sum() == pytest.approx(size)
    assert np.array_equal(np.argsort(soft), np.argsort(worth))
    difference = (soft_mask(worth, size + 1e-4)[0] - soft_mask(worth, size - 1e-4)[0]) / 2e-4
    assert slope == pytest.approx(difference, abs=1e-6)
    assert slope.sum() == pytest.approx(1)


@pytest.mark.parametrize(("worth", "size"), [(np.zeros(5), 2), (np.ones(5), 3), (np.array([0, 0, 1e9]), 1)])
def test_saliences_that_are_alike_or_zero(worth: np.ndarray, size: int) -> None:
    soft, slope = soft_mask(worth, size)
    assert soft.sum() == pytest.approx(size)
    assert np.isfinite(slope).all()
    assert soft[-1] == soft.max()


@pytest.mark.parametrize("net", [nets.plain, nets.residual, nets.depthwise], ids=lambda net: net.__name__)
def test_the_resource_loss_has_the_slope_of_finite_differences(net) -> None:
    """MACs are multilinear in the sizes, so that a central difference is the slope."""
    forms = resource_model(channel_groups(net()))
    budget = Budget(macs=budget_of(net()).macs)
    sizes = np.maximum(forms.full() // 2, 2)
    price = shadow_prices(forms, budget, sizes)["macs"]
    widths = forms.depths() * forms.full()

    def loss(n: np.ndarray) -> float:
        return price * evaluate(forms, n).macs / budget.macs - (1 - widths / n).sum()

    found = resource_slope(forms, sizes, budget)
    for index, step in enumerate(np.eye(len(sizes), dtype=np.int64)):
        bend = widths[index] / (sizes[index] ** 2 - 1) - widths[index] / sizes[index] ** 2  # of 1/n, over +-1
        assert found[index] == pytest.approx((loss(sizes + step) - loss(sizes - step)) / 2 + bend)


def test_at_the_sizes_of_the_allocation_the_resource_loss_is_at_rest() -> None:
    net = keras.Sequential(
        [keras.Input((40,)), *(keras.layers.Dense(n, "relu") for n in (400, 300, 500)), keras.layers.Dense(5)]
    )
    forms = resource_model(channel_groups(net))
    budget = Budget(macs=60_000)
    sizes = allocate(forms, budget)
    pull = forms.full() / sizes**2
    assert np.abs(resource_slope(forms, sizes, budget)) == pytest.approx(0 * pull, abs=0.05 * pull.min())
    for index, scale in enumerate(1 + 2 * np.eye(3)):  # and where one group has more there is a way back
        there = allocate(forms, budget, scale=scale)
        push = resource_slope(forms, there, budget) * there**2 / forms.full()
        assert push[index] > 0.5
        assert np.delete(push, index).max() < 0.1


def sized(net=tiny.network, optimizer: object = "sgd", budget: Budget | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = net()
    gated = tfmcu_prune.prunable(model, budget or budget_of(model), learn_sizes=True)
    gated.compile(optimizer, "mse", jit_compile=False)
    return gated


def test_the_task_loss_reaches_the_sizes() -> None:
    """One step of plain gradient descent moves each size by what finite differences of the gates say."""
    gated = sized(optimizer=keras.optimizers.SGD(1.0))
    layer, forms = gates_of(gated), resource_model(channels_of(gated))
    x, y = tiny.data()
    rng = np.random.default_rng(1)
    mask = np.arange(layer.count) % 3 > 0
    layer.mask.assign(mask.astype("float32"))
    learn(layer, forms, rng.uniform(0.5, 2, layer.count), forms.sizes(mask), layer.budget, 0.1)
    share, slope = (keras.ops.convert_to_numpy(value) for value in (layer.share, layer.slope))
    assert (share > 0).all()
    assert np.abs(slope).min() > 0

    def loss(gates: np.ndarray) -> float:
        layer.mask.assign(gates.astype("float32"))
        return float(np.square(gated.predict(x, verbose=0) - y).mean())

    step = 0.01
    slopes = [(loss(mask + step * one) - loss(mask - step * one)) / (2 * step) for one in np.eye(layer.count)]
    layer.mask.assign(mask.astype("float32"))
    expected = [(share * slopes)[group.channels].sum() for group in forms.groups] + slope
    expected -= expected.mean()  # all groups together are the budget's business
    gated.train_on_batch(x, y)
    assert -keras.ops.convert_to_numpy(layer.log_sizes) == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_nothing_else_changes() -> None:
    """The same predictions, loss and gradients as without, and no size that moves before the pruning."""
    plain, learned = tiny.gated(loss="mse"), sized()
    x, y = tiny.data()
    assert np.array_equal(plain.predict(x, verbose=0), learned.predict(x, verbose=0))
    assert plain.train_on_batch(x, y) == pytest.approx(learned.train_on_batch(x, y))
    assert plain.predict(x, verbose=0) == pytest.approx(learned.predict(x, verbose=0))
    assert not keras.ops.convert_to_numpy(gates_of(learned).log_sizes).any()


def two_branches() -> keras.Model:
    """Two branches of one size, each with inputs of its own."""
    inputs = [keras.Input((6,), name=name) for name in ("signal", "noise")]
    outputs = [keras.layers.Dense(16, "relu", name=f"of_{tensor.name}")(tensor) for tensor in inputs]
    return keras.Model(inputs, keras.layers.Dense(6)(keras.layers.Concatenate()(outputs)))


@pytest.mark.parametrize("run", [keras.Model.fit, tfmcu_prune.fit], ids=["fit", "tfmcu_prune.fit"])
def test_the_branch_that_the_task_needs_keeps_more(run) -> None:
    rng = np.random.default_rng(0)
    signal, noise = (rng.normal(size=(512, 6)).astype("float32") for _ in range(2))
    target = np.abs(signal) @ rng.normal(size=(6, 6)).astype("float32")
    budget = budget_of(two_branches(), 0.5)
    gated = sized(two_branches, keras.optimizers.Adam(0.01), budget)
    options = {"batch_size": 16, "epochs": 8, "verbose": 0, "callbacks": [tiny.pruning(strength=0)]}
    run(gated, [signal, noise], target, **options)
    forms = resource_model(channels_of(gated))
    kept = dict(zip([g.name for g in forms.groups], forms.sizes(tfmcu_prune.get_mask(gated)), strict=True))
    without = dict(zip([g.name for g in forms.groups], allocate(forms, budget), strict=True))
    assert abs(without["of_signal"] - without["of_noise"]) <= 1
    assert kept["of_signal"] >= without["of_signal"] + 2
    assert not over(tiny.form(gated), budget)


def test_a_saved_training_goes_on(tmp_path: Path) -> None:
    whole = sized()
    early = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    tiny.fit(whole, callbacks=[tiny.pruning(), early])
    again = keras.models.load_model(tmp_path / "1.keras")
    layer = gates_of(again)
    assert isinstance(layer, SizedGates)
    for name in ("owner", "share", "slope", "log_sizes"):
        assert keras.ops.convert_to_numpy(getattr(layer, name)).any()
    tiny.fit(again, initial_epoch=1)
    assert tiny.is_within(again)
    for weight, other in zip(again.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(other))


def test_sizes_rest_once_the_mask_is_frozen() -> None:
    gated = sized()
    tiny.fit(gated)
    layer = gates_of(gated)
    assert keras.ops.convert_to_numpy(layer.log_sizes).any()
    assert (scale_of(layer) > 0).all()
    assert not keras.ops.convert_to_numpy(layer.share).any()
    assert not keras.ops.convert_to_numpy(layer.slope).any()


def test_a_larger_scale_keeps_more() -> None:
    forms = resource_model(channel_groups(nets.plain()))
    budget = budget_of(nets.plain(), 0.5)
    without, more = allocate(forms, budget), allocate(forms, budget, scale=np.array([4.0, 1.0]))
    assert more[0] > without[0]
    assert more[1] < without[1]
    assert not over(evaluate(forms, more), budget)


def test_an_allocation_that_takes_no_scale_is_told() -> None:
    with pytest.raises(ValueError, match=r"takes `scale`.*learn_sizes=True.*rank_globally"):
        tiny.fit(sized(), callbacks=[tiny.pruning(allocation=rank_globally)])
