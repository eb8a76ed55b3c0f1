"""Masks on real networks: the strip is the gated model, costs what was foretold, and converts."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from applications import APPLICATIONS, ZOO, Case, calibrate, count_macs, randomize_scaled, widths
from networks import half_mask, inputs_for, outputs_of, random_mask

import tfmcu_prune
from tfmcu_prune.channels import Channels, channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.resources import count_parameters, evaluate, peak_sram

CASES = [pytest.param(case, id=case.name) for case in (*APPLICATIONS, *ZOO)]
SHALLOW = ("ds_cnn", "fc_autoencoder", "resnet1d", "resnet8", "unet", "vgg_small")
TEN = [
    pytest.param(case, id=case.name, marks=[] if case.name in SHALLOW else pytest.mark.slow)
    for case in (*APPLICATIONS, *ZOO)
]


@pytest.fixture
def float64() -> Iterator[None]:
    """Deep networks of random weights amplify rounding; in float64 what is left of it is far below any mistake."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # Keras may have made the one of floatx by now
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.fixture(autouse=True)
def _alike() -> Iterator[None]:
    """The same weights whatever ran before, and their memory back."""
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_half_of_every_group(case: Case) -> None:
    model = randomize_scaled(case.build())
    inputs, channels, gated = inputs_for(model, 8), channel_groups(model), tfmcu_prune.prunable(model)
    full = outputs_of(model, inputs)
    assert full.dtype == np.float64
    np.testing.assert_allclose(outputs_of(gated, inputs), full, atol=1e-12 * np.abs(full).max(), rtol=0)
    small = _check_strip(gated, channels, half_mask(channels), inputs, 0.5)
    if case.simple:  # of a layer that can lose half of its channels all are prunable
        before, after = widths(model), widths(small)
        assert 2 * sum(before[name] - after[name] for name in before) >= 0.95 * sum(before.values())
    group = channels.groups[0]
    with pytest.raises(ValueError, match=f"leaves 0 of the {group.size} channels of the group {group.name!r}"):
        tfmcu_prune.set_mask(gated, ~np.isin(np.arange(channels.count), group.channels))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", TEN)
def test_ten_masks(case: Case) -> None:
    """Random ones, from that which leaves one channel in each group on."""
    model = randomize_scaled(case.build())
    inputs, channels, gated = inputs_for(model, 8), channel_groups(model), tfmcu_prune.prunable(model)
    weights = gated.get_weights()
    for seed in range(10):
        gated.set_weights(weights)  # the check scales them
        _check_strip(gated, channels, random_mask(channels, seed, seed / 10), inputs, max(seed, 1) / 10)


def _check_strip(gated: keras.Model, channels: Channels, mask: np.ndarray, inputs: Any, share: float) -> keras.Model:
    """Put a mask in, strip, and compare what the strip computes and costs."""
    tfmcu_prune.set_mask(gated, mask)
    gates_of(gated).offset.assign(np.random.default_rng(0).normal(0, 0.1, channels.count))
    calibrate(gated, inputs, share)
    small = tfmcu_prune.strip(gated)
    predicted, actual = resource_model(channels), resource_model(channel_groups(small))
    sizes = predicted.sizes(mask)
    assert evaluate(predicted, sizes) == evaluate(actual, actual.full())
    assert peak_sram(predicted, sizes) == peak_sram(actual, actual.full())
    assert count_parameters(channels, mask) == small.count_params()
    assert evaluate(predicted, sizes).macs == count_macs(small)
    expected = outputs_of(gated, inputs).reshape(len(inputs), -1)
    scale = np.abs(expected).max()
    assert 1e-3 < scale < 1e6
    if share >= 0.3:  # with a channel or two a layer a network can be dead
        assert np.ptp(expected, axis=0).max() > 0.002 * scale  # far more than the comparison allows
    np.testing.assert_allclose(outputs_of(small, inputs), expected.reshape(-1), atol=1e-9 * scale, rtol=0)
    return small


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_file_costs_what_was_foretold(case: Case) -> None:
    if not case.convertible:
        pytest.skip("TensorFlow Lite Micro lacks an operator")
    model = randomize_scaled(case.build())
    channels, gated, inputs = channel_groups(model), tfmcu_prune.prunable(model), inputs_for(model, 2)
    mask = random_mask(channels, 0, 0.3)
    tfmcu_prune.set_mask(gated, mask)
    calibrate(gated, inputs, 0.3)
    data = tfmcu_prune.convert(tfmcu_prune.strip(gated), inputs, optimize_arena=False)
    forms = resource_model(channels)
    sizes, footprint = forms.sizes(mask), tfmcu_prune.footprint(data)
    form = evaluate(forms, sizes)
    assert footprint.macs == form.macs
    assert max(operator.live for operator in footprint.operators) == peak_sram(forms, sizes)
    assert abs(footprint.flash - form.flash) <= max(1024, 0.02 * footprint.flash)
