"""The operators that `lower` foretells against those of the converted stripped file: kinds, order, sizes, lives."""

from __future__ import annotations

import applications
import keras
import more_nets
import nets
import numpy as np
import pytest
from absl import logging
from lowered import first_difference
from networks import inputs_for, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import UnsupportedLayer
from tfmcu_prune.channels import Channels, channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate, peak_sram

REFUSED = {  # what the error says of each
    "volume": "MaxPool3D",
    "smooth_activations": "stays in floating point",
}
ESTIMATED = {  # cross-attention's order, shared steps, products of vectors, transpositions that cancel
    *("attention", "time_distributed", "softmax_channels", "dot", "permuted_channels"),
}
FORETOLD = [net for net in (*nets.ALL, *more_nets.MORE) if net.__name__ not in {*REFUSED, *ESTIMATED}]
QUICK = {"MobileNet", "MobileNetV2"}
ORDER_DIFFERS = {"NASNetMobile"}


def _stripped(model: keras.Model, seed: int) -> tuple[Channels, np.ndarray, bytes]:
    channels = channel_groups(model)
    mask = random_mask(channels, seed)
    gated = tfmcu_prune.prunable(model)
    tfmcu_prune.set_mask(gated, mask)
    small = tfmcu_prune.strip(gated)
    return channels, mask, tfmcu_prune.convert(small, inputs_for(small, 4), optimize_arena=False)


def _check(channels: Channels, mask: np.ndarray, data: bytes, ordered: bool = True) -> None:
    forms = resource_model(channels)
    sizes, footprint = forms.sizes(mask), tfmcu_prune.footprint(data)
    if ordered:
        assert first_difference(forms.program, mask, data) == ""
    assert not forms.program.estimated
    assert peak_sram(forms, sizes) == footprint.lower_bound  # TFLM's placement may waste memory beyond that
    told = evaluate(forms, sizes)
    assert told.macs == footprint.macs
    assert abs(told.flash - footprint.flash) <= max(640, 0.005 * footprint.flash)
    tolerance = max(768, 0.02 * told.arena)
    assert -tolerance - (footprint.head - footprint.lower_bound) <= told.arena - footprint.arena <= tolerance


@pytest.mark.parametrize("net", FORETOLD, ids=lambda net: net.__name__)
def test_the_file_has_the_operators_foretold(net) -> None:
    _check(*_stripped(randomize(net()), 1))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.name in QUICK else [pytest.mark.slow])
        for case in applications.APPLICATIONS
        if case.convertible
    ],
)
def test_applications(case) -> None:
    model = applications.randomize_scaled(case.build())
    _check(*_stripped(model, 1), ordered=case.name not in ORDER_DIFFERS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_convert_is_refused_by_name(name: str) -> None:
    model = randomize(getattr(more_nets, name)())
    with pytest.raises(UnsupportedLayer, match=REFUSED[name]):
        tfmcu_prune.convert(model, inputs_for(model))


@pytest.mark.parametrize("name", sorted(ESTIMATED))
def test_estimates_are_near(name: str) -> None:
    channels, mask, data = _stripped(randomize(getattr(more_nets, name)()), 1)
    forms = resource_model(channels)
    told, real = evaluate(forms, forms.sizes(mask)), tfmcu_prune.footprint(data)
    assert told.macs == pytest.approx(real.macs, rel=0.1)
    assert told.arena == pytest.approx(real.arena, rel=0.5)


def test_an_estimate_is_said_once(monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    inputs = keras.Input((6, 4))
    x = keras.layers.RNN(keras.layers.GRUCell(5), unroll=True, name="an_rnn_to_estimate")(inputs)
    channels = channel_groups(keras.Model(inputs, keras.layers.Dense(2)(x)))
    resource_model(channels)
    resource_model(channels)
    assert len(said) == 1
    assert "an_rnn_to_estimate" in said[0]


@pytest.mark.parametrize(
    "name", ["upsampling", "transposed_decoder", "group_norm", "splits", "prelu", "channel_shuffle", "embedding"]
)
def test_the_wheel_takes_what_the_footprint_says(name: str) -> None:
    """The operators that the converter makes of these layers, on TensorFlow Lite Micro itself."""
    pytest.importorskip("tflite_micro", reason="pip install --pre tflite-micro")
    _, _, data = _stripped(randomize(getattr(more_nets, name)()), 0)
    told = tfmcu_prune.footprint(data, target="x86-64")
    assert tfmcu_prune.tflm.measure(data) == (told.head, told.tail, told.arena_used)
