from __future__ import annotations

import keras
import nets
import numpy as np
import pytest

from tfmcu_prune import Budget, zoo
from tfmcu_prune.allocation import allocate, choose, ramp
from tfmcu_prune.budget import Resources
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.regularizer import prices
from tfmcu_prune.resources import RESOURCES, evaluate, gradient, over
from tfmcu_prune.salience import outgoing_norm, weight_norm


@pytest.mark.parametrize("net", nets.ALL, ids=lambda net: net.__name__)
def test_slopes_are_finite_differences(net) -> None:
    """MACs are multilinear in the sizes, so the central difference of one channel is the slope itself."""
    forms = resource_model(channel_groups(net()))
    sizes = np.maximum(forms.full() // 2, 2)
    slopes = gradient(forms, sizes)
    for index in range(len(forms.groups)):
        step = np.eye(len(sizes), dtype=np.int64)[index]
        up, down = evaluate(forms, sizes + step), evaluate(forms, sizes - step)
        assert slopes[2, index] == pytest.approx((up.macs - down.macs) / 2)
        assert slopes[1, index] == pytest.approx((up.flash - down.flash) / 2, abs=84)  # rounding, what is shared
        assert up.arena - down.arena >= -48  # one shape less where two coincide


def test_the_smooth_peak_follows_the_peak() -> None:
    forms = resource_model(channel_groups(nets.plain()))
    slopes = gradient(forms, forms.full())
    assert slopes[0, 0] > 10 * slopes[0, 1] > 0  # the first convolution, at full resolution, holds the peak


@pytest.mark.parametrize("net", nets.ALL, ids=lambda net: net.__name__)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_allocation_is_within_and_maximal(net, share: float) -> None:
    forms = resource_model(channel_groups(net()))
    full, least = evaluate(forms, forms.full()), evaluate(forms, np.ones(len(forms.groups), np.int64))
    limits = {k: round(share * getattr(full, k) + (1 - share) * getattr(least, k)) for k in RESOURCES}
    budget = Budget(**limits)
    sizes = allocate(forms, budget)
    assert not over(evaluate(forms, sizes), budget)
    assert (sizes >= 1).all() and (sizes <= forms.full()).all()  # noqa: PT018
    for index in np.flatnonzero(sizes < forms.full()):
        step = np.eye(len(sizes), dtype=np.int64)[index]
        assert over(evaluate(forms, sizes + step), budget)


def test_allocation_balances_equal_groups() -> None:
    """Two groups that cost the same keep the same share."""
    forms = resource_model(channel_groups(nets.concat_add()))
    sizes = dict(zip([g.name for g in forms.groups], allocate(forms, Budget(macs=6000)), strict=True))
    halves = list(sizes.values())[:2]
    assert abs(halves[0] - halves[1]) <= 1


@pytest.mark.parametrize(
    ("net", "depths"),
    [
        (zoo.resnet8, [2, 1, 1, 1, 1, 1]),  # the first stream has a block behind what begins it
        (lambda *shape: zoo.resnet20(*shape, blocks=2), [3, 1, 1, 2, 1, 1, 2, 1, 1]),
        (zoo.ds_cnn, [1] * 5),
    ],
    ids=["resnet8", "resnet20", "ds_cnn"],
)
def test_every_block_adds_to_the_depth_of_its_stream(net, depths: list[int]) -> None:
    groups = channel_groups(net((16, 16, 1), 3)).groups
    assert [group.depth for group in groups] == depths


def test_what_many_blocks_make_keeps_more() -> None:
    forms = resource_model(channel_groups(zoo.resnet20((16, 16, 1), 3)))
    budget = Budget(flash="20KiB")
    streams = forms.depths() > 1
    counted, once = allocate(forms, budget), allocate(forms.by_group(), budget)
    assert (counted[streams] > once[streams]).all()
    assert (counted[~streams] <= once[~streams]).all()
    weighted = allocate(forms.by_group(), budget, scale=forms.depths())  # the same where u is -1 / s
    assert np.array_equal(counted, weighted)


def test_ramp() -> None:
    start = Resources(arena=1000, flash=100, macs=9000)
    assert ramp(Budget(arena=500, macs=1000), start, 0.0) == Budget(arena=1000, macs=9000)
    assert ramp(Budget(arena=500, macs=1000), start, 1.0) == Budget(arena=500, macs=1000)
    assert ramp(Budget(flash=200), start, 0.0) == Budget(flash=200)


def test_choose_keeps_the_best_of_each_group() -> None:
    forms = resource_model(channel_groups(nets.plain()))
    salience = np.arange(14.0)
    assert np.flatnonzero(choose(forms, salience, np.array([2, 3]))).tolist() == [4, 5, 11, 12, 13]


def test_prices_are_for_channels_on_their_way_out() -> None:
    forms = resource_model(channel_groups(nets.plain()))
    mask = np.ones(14, bool)
    mask[0] = False
    target = np.arange(14) % 2 == 0
    price = prices(forms, mask, target, Budget(macs=1000), 0.5)
    assert (price > 0).tolist() == (mask & ~target).tolist()
    assert price.sum() == pytest.approx(0.5)
    slopes = gradient(forms, forms.sizes(mask))[2]
    assert price[1] / price[7] == pytest.approx(slopes[0] / slopes[1])
    assert not prices(forms, mask, target, Budget(), 0.5).any()


def test_salience_is_the_norm_over_the_mean_norm() -> None:
    model = nets.plain()
    channels = channel_groups(model)
    kernel = model.layers[0].get_weights()[0]
    norms = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    gates = np.linspace(0.5, 1.5, channels.count)
    np.testing.assert_allclose(weight_norm(channels, gates)[:6], gates[:6] * norms / norms.mean(), rtol=1e-6)


def test_outgoing_salience_is_what_the_readers_make_of_a_channel() -> None:
    channels = channel_groups(keras.Sequential([
        keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization(), keras.layers.Conv2D(5, 1)
    ]))  # fmt: skip
    _, normalization, reader = (call.layer for call in channels.graph.calls)
    normalization.gamma.assign([1.0, -2.0, 0.5])
    reader.kernel.assign(np.array([3.0, 1.0, 2.0])[:, None] * np.ones((1, 1, 3, 5)))
    gates = np.ones(channels.count)
    np.testing.assert_allclose(outgoing_norm(channels, gates)[:3], np.array([3.0, 2.0, 1.0]) / 2, rtol=1e-6)


def test_salience_of_a_residual_group_averages_its_branches() -> None:
    model = nets.residual()
    channels = channel_groups(model)
    norms = [np.sqrt((model.layers[i].get_weights()[0] ** 2).sum(axis=(0, 1, 2))) for i in (1, 4)]
    expected = sum(norm / norm.mean() for norm in norms)
    np.testing.assert_allclose(weight_norm(channels, np.ones(channels.count))[:8], expected / 2, rtol=1e-6)
