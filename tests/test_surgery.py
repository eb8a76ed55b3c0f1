from __future__ import annotations

from pathlib import Path

import keras
import more_nets
import nets
import numpy as np
import pytest
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.resources import count_parameters, evaluate, peak_sram


@pytest.mark.parametrize("net", [*nets.ALL, *more_nets.MORE], ids=lambda net: net.__name__)
def test_strip_is_the_gated_model(net) -> None:
    model = randomize(net())
    inputs, channels = inputs_for(model), channel_groups(model)
    gated = tfmcu_prune.prunable(model)
    assert np.array_equal(outputs_of(gated, inputs), outputs_of(model, inputs))
    for seed in range(3):
        mask = random_mask(channels, seed)
        tfmcu_prune.set_mask(gated, mask)
        gates_of(gated).offset.assign(np.random.default_rng(seed).normal(0, 0.2, channels.count))
        small = tfmcu_prune.strip(gated)
        np.testing.assert_allclose(outputs_of(small, inputs), outputs_of(gated, inputs), atol=1e-5, rtol=1e-5)
        _check_resources(channels, mask, small)


def test_layers_keep_their_initializers() -> None:
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((6, 6, 1)), layers.Conv2D(4, 3, kernel_initializer="he_normal", name="conv"),
        layers.Flatten(), layers.Dense(2, bias_initializer="ones", name="dense"),
    ])  # fmt: skip
    gated = tfmcu_prune.prunable(model)
    mask = tfmcu_prune.get_mask(gated)
    mask[0] = False
    tfmcu_prune.set_mask(gated, mask)
    again = keras.models.clone_model(tfmcu_prune.strip(gated))
    assert isinstance(again.get_layer("conv").kernel_initializer, keras.initializers.HeNormal)
    kernel, _, _, bias = again.get_weights()
    assert np.ptp(kernel) > 0
    assert (bias == 1).all()


def _check_resources(channels, mask: np.ndarray, small: keras.Model) -> None:
    predicted, actual = resource_model(channels), resource_model(channel_groups(small))
    sizes = predicted.sizes(mask)
    assert evaluate(predicted, sizes) == evaluate(actual, actual.full())
    assert peak_sram(predicted, sizes) == peak_sram(actual, actual.full())
    assert count_parameters(channels, mask) == small.count_params()


@pytest.mark.parametrize("net", [*nets.ALL, *more_nets.MORE], ids=lambda net: net.__name__)
def test_saved_models_are_the_same(net, tmp_path: Path) -> None:
    model = randomize(net())
    inputs = inputs_for(model)
    gated = tfmcu_prune.prunable(model, tfmcu_prune.Budget(macs="1G"))
    tfmcu_prune.set_mask(gated, random_mask(channel_groups(model), 1))
    small = tfmcu_prune.strip(gated)
    for name, saved in (("gated", gated), ("small", small)):
        saved.save(tmp_path / f"{name}.keras")
        loaded = keras.models.load_model(tmp_path / f"{name}.keras")
        assert np.array_equal(outputs_of(loaded, inputs), outputs_of(saved, inputs))
    again = tfmcu_prune.strip(keras.models.load_model(tmp_path / "gated.keras"))
    assert np.array_equal(outputs_of(again, inputs), outputs_of(small, inputs))


def test_names_and_settings_survive() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            keras.layers.Conv2D(4, 3, name="first", kernel_regularizer="l2", kernel_constraint="non_neg"),
            keras.layers.BatchNormalization(name="norm", trainable=False),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, name="last", kernel_regularizer="l1"),
        ],
        name="mine",
    )
    small = tfmcu_prune.strip(tfmcu_prune.prunable(model))
    assert small.name == "mine"
    assert [tensor.name for tensor in small.inputs] == ["image"]
    assert [layer.name for layer in small.layers] == ["image", "first", "norm", "flat", "last"]
    assert not small.get_layer("norm").trainable
    assert isinstance(small.get_layer("first").kernel_regularizer, keras.regularizers.L2)
    assert isinstance(small.get_layer("first").kernel_constraint, keras.constraints.NonNeg)


def test_hand_made_counts() -> None:
    """12x12x1 -> conv 3x3 (2 kept) -> pool -> conv 3x3 (3 kept) -> pool -> dense 4."""
    gated = tfmcu_prune.prunable(nets.plain())
    channels = channel_groups(nets.plain())
    mask = np.zeros(channels.count, bool)
    mask[[0, 5, 6, 7, 8]] = True  # the first group has 6 channels, the second 8
    tfmcu_prune.set_mask(gated, mask)
    small = tfmcu_prune.strip(gated)
    model = resource_model(channels)
    assert evaluate(model, model.sizes(mask)).macs == 12 * 12 * 9 * 1 * 2 + 4 * 4 * 9 * 2 * 3 + 3 * 4
    assert small.count_params() == (9 * 1 * 2 + 4 * 2) + (9 * 2 * 3 + 3) + (3 * 4 + 4)


def test_a_model_without_gates() -> None:
    with pytest.raises(ValueError, match="without gates"):
        tfmcu_prune.strip(nets.plain())
