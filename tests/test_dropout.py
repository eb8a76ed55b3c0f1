"""Dropout rates for the channels that will be left."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from networks import inputs_for, outputs_of, randomize

import tfmcu_prune
from tfmcu_prune import Budget, zoo
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.dropout import reduced_rates


def _chain(dropout: keras.layers.Layer, width: int = 12) -> keras.Model:
    return keras.Sequential([keras.Input((8,)), layers.Dense(width, name="wide"), dropout, layers.Dense(2)])


def _rates(model: keras.Model, *sizes: int) -> dict[str, float]:
    return reduced_rates(channel_groups(model), np.array(sizes))


@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout, layers.GaussianDropout])
@pytest.mark.parametrize("left", [3, 6, 11])
def test_the_noise_of_a_sum_stays_the_same(kind, left) -> None:
    rate = _rates(_chain(kind(0.4, name="drop")), left)["drop"]
    assert rate / (1 - rate) / left == pytest.approx(0.4 / 0.6 / 12, 1e-3)


def test_the_measured_noise_stays_the_same() -> None:
    def noise(rate: float, channels: int) -> float:
        dropped = layers.Dropout(rate, seed=0)(np.ones((20_000, channels), "float32"), training=True)
        sums = keras.ops.convert_to_numpy(dropped).sum(-1)
        return float(sums.std() / sums.mean())

    rate = _rates(_chain(layers.Dropout(0.5, name="drop"), 64), 16)["drop"]
    assert noise(rate, 16) == pytest.approx(noise(0.5, 64), rel=0.03)
    assert noise(0.5, 16) > 1.5 * noise(0.5, 64)


def test_the_figure_of_the_readme() -> None:
    assert round(_rates(_chain(layers.Dropout(0.4, name="drop"), 64), 16)["drop"], 2) == 0.14


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_nothing_and_all_dropped_stay(rate) -> None:
    assert _rates(_chain(layers.Dropout(rate)), 3) == {}


def test_all_channels_kept_keep_their_rate() -> None:
    assert _rates(_chain(layers.Dropout(0.3)), 12) == {}


def test_dropout_at_the_input_and_behind_fixed_layers_keeps_its_rate() -> None:
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dropout(0.2, name="first"), layers.Dense(12, name="kept"), layers.Dropout(0.3),
         layers.Dense(9), layers.Dropout(0.5, name="last"), layers.Dense(2)]
    )  # fmt: skip
    assert reduced_rates(channel_groups(model, fixed=["kept"]), np.array([3])) == {"last": 0.25}


def test_channels_of_several_groups_count_together() -> None:
    inputs = keras.Input((6, 6, 1))
    a, b = layers.Conv2D(4, 3)(inputs), layers.Conv2D(12, 3)(inputs)
    x = layers.SpatialDropout2D(0.5, name="spatial")(layers.Concatenate()([a, b]))
    x = layers.Dropout(0.5, name="flat")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    channels = channel_groups(model)
    sizes = np.array([1 if group.size == 4 else 3 for group in channels.groups])  # 4 of 16 channels
    assert reduced_rates(channels, sizes) == {"spatial": 0.2, "flat": 0.2}


def test_the_rates_are_those_of_the_budget_and_predictions_stay() -> None:
    model = randomize(zoo.ds_cnn((49, 10, 1), 11, width=32))
    budget = Budget(arena="7KiB", flash="8KiB")
    gated = tfmcu_prune.prunable(model, budget)
    drops = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    new = [gated.get_layer(layer.name).rate for layer in drops]
    assert all(0.01 < rate < 0.8 * layer.rate for rate, layer in zip(new, drops, strict=True))
    assert [layer.rate for layer in drops] == [0.2, 0.4]
    assert np.array_equal(outputs_of(gated, inputs_for(model)), outputs_of(model, inputs_for(model)))
    small = tfmcu_prune.strip(gated)
    assert [small.get_layer(layer.name).rate for layer in drops] == new


def test_without_a_budget_the_rates_stay() -> None:
    gated = tfmcu_prune.prunable(_chain(layers.Dropout(0.3, name="drop")))
    assert gated.get_layer("drop").rate == 0.3


def test_a_rate_that_was_set_stays_while_fit_cuts() -> None:
    model = randomize(_chain(layers.Dropout(0.5, name="drop"), 64))
    gated = tfmcu_prune.prunable(model, Budget(macs=80))
    assert gated.get_layer("drop").rate < 0.2
    gated.get_layer("drop").rate = 0.35
    gated.compile("sgd", "mse")
    x, y = np.ones((16, 8), "float32"), np.ones((16, 2), "float32")
    tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=4, verbose=0)
    small = tfmcu_prune.strip(gated)
    assert small.get_layer("drop").rate == 0.35
    assert small.get_layer("wide").units < 64
