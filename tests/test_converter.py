from __future__ import annotations

import keras
import nets
import numpy as np
import pytest
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import UnsupportedLayer
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.resources import evaluate, resource_model
from tfmcu_prune.tflm import run
from tfmcu_prune.tflm.schema import read_model


@pytest.mark.parametrize("net", nets.ALL, ids=lambda net: net.__name__)
def test_the_file_computes_and_costs_what_the_model_does(net) -> None:
    """int8 outputs on the real TFLM near the float ones; resources near those of the closed form, MACs equal."""
    model = randomize(net())
    channels = channel_groups(model)
    gated = tfmcu_prune.prunable(model)
    tfmcu_prune.set_mask(gated, random_mask(channels, 0))
    small = tfmcu_prune.strip(gated)
    inputs = inputs_for(model, samples=20)
    data = tfmcu_prune.convert(small, inputs)
    real = outputs_of(small, inputs)
    ran = np.concatenate([np.ravel(output) for output in keras.tree.flatten(run(data, inputs))])
    assert np.abs(ran - real).max() < 0.15 * np.ptp(real)
    assert np.corrcoef(ran, real)[0, 1] > 0.99
    forms = resource_model(channels)
    form = evaluate(forms, forms.sizes(tfmcu_prune.get_mask(gated)))
    footprint = tfmcu_prune.footprint(data)
    assert footprint.macs == form.macs
    assert abs(footprint.arena - form.arena) <= 384
    assert abs(footprint.flash - form.flash) <= 1024


def test_names_of_the_file_are_those_of_keras() -> None:
    model = randomize(nets.two_in_two_out())
    graph = read_model(tfmcu_prune.convert(model, inputs_for(model))).main
    assert [graph.tensors[i].name for i in graph.inputs] == ["left", "right"]
    assert [graph.tensors[i].name for i in graph.outputs] == model.output_names
    assert {tensor.type for tensor in graph.tensors} == {"int8", "int32"}
    names = {layer.name for layer in model.layers}
    assert {tensor.name for tensor in graph.tensors if not tensor.constant} <= names


def test_dictionaries_and_order_of_inputs() -> None:
    model = randomize(nets.two_in_two_out())
    left, right = inputs_for(model)
    assert tfmcu_prune.convert(model, {"right": right, "left": left}) == tfmcu_prune.convert(model, [left, right])


def test_mixed_precision_leaves_no_trace() -> None:
    model = nets.plain()
    config = model.get_config()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = nets.plain()
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    inputs = inputs_for(model, 20)
    assert len(tfmcu_prune.convert(mixed, inputs)) == len(tfmcu_prune.convert(model, inputs))
    assert config == model.get_config()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            keras.layers.Activation("gelu", name="smooth"),
            "'smooth' becomes the operator GELU, which TensorFlow Lite Micro lacks",
        ),
        (keras.layers.ELU(name="elu"), "'elu' stays in floating point"),
    ],
    ids=["GELU", "float"],
)
def test_operators_that_do_not_run_are_named(layer, message: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), layer, keras.layers.Conv2D(4, 3)])
    with pytest.raises(UnsupportedLayer, match=message):
        tfmcu_prune.convert(model, inputs_for(model))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((0, 12, 12, 1)), "is empty"),
        ([], "is empty"),
        (np.zeros((4, 12, 12, 3)), r"Expected shape \(samples, 12, 12, 1\). Received: \(4, 12, 12, 3\)"),
        (np.zeros((12, 12, 1)), "does not fit the input"),
        (np.full((2, 12, 12, 1), np.nan), "NaN"),
        (np.full((2, 12, 12, 1), "a"), "Expected calibration numbers"),
        ({"x": np.zeros((2, 12, 12, 1))}, "Expected calibration arrays named"),
    ],
    ids=["empty", "empty list", "channels", "no batch", "NaN", "text", "names"],
)
def test_bad_calibration(calibration, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfmcu_prune.convert(nets.plain(), calibration)
