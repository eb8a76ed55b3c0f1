"""Conversion of every layer and pattern that TensorFlow Lite Micro has operators for."""

from __future__ import annotations

import keras
import more_nets
import numpy as np
import pytest
from keras import layers
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate, peak_sram
from tfmcu_prune.tflm import run

# Refused (tests/test_lowering.py), an EXP in int8, and five dimensions in a slice, which TFLM does not run
LEFT_OUT = {"volume", "smooth_activations", "softmax_channels", "time_distributed"}
# Layers with no row in the table of operators: their cost is an estimate until they are converted
ESTIMATED = {"attention", "dot", "ops_mixing", "transposed_1d"}
CONVERTIBLE = [net for net in more_nets.MORE if net.__name__ not in LEFT_OUT]


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("net", CONVERTIBLE, ids=lambda net: net.__name__)
def test_the_file_computes_and_costs_what_the_model_does(net) -> None:
    keras.utils.clear_session()  # or names, which take flash, are the longer the more networks were built before
    model = randomize(net())
    channels, gated = channel_groups(model), tfmcu_prune.prunable(model)
    mask = random_mask(channels, 0)
    tfmcu_prune.set_mask(gated, mask)
    small = tfmcu_prune.strip(gated)
    inputs = inputs_for(model, samples=20)
    data = tfmcu_prune.convert(small, inputs, optimize_arena=False)
    real = outputs_of(small, inputs)
    ran = np.concatenate([np.ravel(output) for output in keras.tree.flatten(run(data, inputs))])
    assert np.corrcoef(ran, real)[0, 1] > 0.95
    assert np.abs(ran - real).max() < 0.2 * np.ptp(real)
    if net.__name__ not in ESTIMATED:
        forms, footprint = resource_model(channels), tfmcu_prune.footprint(data)
        sizes = forms.sizes(mask)
        assert footprint.macs == evaluate(forms, sizes).macs
        assert max(operator.live for operator in footprint.operators) == peak_sram(forms, sizes)
        # 3 % for the 400 operators of `bidirectional`, 1642 bytes off under this mask, more with longer names
        assert abs(footprint.flash - evaluate(forms, sizes).flash) <= max(1024, 0.03 * footprint.flash)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("as_dict", [True, False])
def test_calibration_reaches_its_input(names: tuple[str, str], as_dict: bool) -> None:
    """The converter of TensorFlow puts inputs into an order of its own; ranges that differ show which got which."""
    wide, narrow = keras.Input((12, 2), name=names[0]), keras.Input((6, 6, 2), name=names[1])
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(5, 3)(wide))
    x = layers.Concatenate()([x, layers.GlobalMaxPooling2D()(layers.Conv2D(5, 3)(narrow))])
    given = {names[0]: wide, names[1]: narrow} if as_dict else [wide, narrow]
    model = randomize(keras.Model(given, layers.Dense(3)(x)))
    inputs = inputs_for(model, 20)
    ran, real = np.ravel(run(tfmcu_prune.convert(model, inputs), inputs)), outputs_of(model, inputs)
    assert np.abs(ran - real).max() < 0.05 * np.ptp(real)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_recurrent_layers_are_written_out(kind) -> None:
    inputs = keras.Input((4, 3))
    model = randomize(keras.Model(inputs, layers.Dense(3)(kind(5)(layers.Conv1D(4, 2, activation="relu")(inputs)))))
    samples = inputs_for(model, 20)
    ran, real = np.ravel(run(tfmcu_prune.convert(model, samples), samples)), outputs_of(model, samples)
    assert np.abs(ran - real).max() < 0.1 * np.ptp(real)
