from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import nets
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import Budget, BudgetError, UnsupportedLayer
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate
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
    ("quantize", "input_dtype", "output_dtype"),
    [
        ("int8", "uint8", "int8"),
        ("int8", "float32", "uint8"),
        ("int16x8", None, None),
        ("int16x8", "float32", "float32"),
        ("float", None, None),
    ],
)
def test_types(quantize: str, input_dtype: str | None, output_dtype: str | None) -> None:
    model = randomize(nets.two_in_two_out())
    inputs = inputs_for(model, 20)
    data = tfmcu_prune.convert(
        model, inputs, quantize=quantize, input_dtype=input_dtype, output_dtype=output_dtype
    )  # fmt: skip
    graph = read_model(data).main
    usual = {"int8": "int8", "int16x8": "int16", "float": "float32"}[quantize]
    assert {graph.tensors[i].type for i in graph.inputs} == {input_dtype or usual}
    assert {graph.tensors[i].type for i in graph.outputs} == {output_dtype or usual}
    assert [graph.tensors[i].name for i in graph.inputs] == ["left", "right"]
    assert [graph.tensors[i].name.split(":")[0] for i in graph.outputs] == model.output_names
    assert not tfmcu_prune.footprint(data).uncertain  # TFLM with CMSIS-NN runs it
    real = outputs_of(model, inputs)
    ran = np.concatenate([np.ravel(output) for output in run(data, inputs)])
    allowed = {"int8": 0.05, "int16x8": 0.02, "float": 1e-5}[quantize]
    assert np.abs(ran - real).max() < allowed * np.ptp(real)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int4"}, "Expected quantize to be one of int8, int16x8, float. Received: quantize='int4'"),
        ({"input_dtype": "int16"}, "Expected input_dtype to be one of int8, uint8, float32 with quantize='int8'"),
        ({"quantize": "float", "output_dtype": "int8"}, "Expected output_dtype to be one of float32"),
        ({"labels": "abcd"}, "Expected labels to be a list of strings"),
        ({"labels": ["a", "b"]}, "Expected 4 labels, one a class. Received: 2"),
    ],
)
def test_options_that_cannot_be(options, message: str) -> None:
    model = nets.plain()
    with pytest.raises(ValueError, match=message):
        tfmcu_prune.convert(model, inputs_for(model), **options)


def test_labels_are_in_the_file_and_change_nothing_else() -> None:
    model = randomize(nets.plain())
    inputs, labels = inputs_for(model, 20), ["yes", "no", "naïve", ""]
    data = tfmcu_prune.convert(model, inputs, labels=labels)
    written = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    (entry,) = [entry for entry in written.metadata if entry.name == b"labels"]
    assert bytes(written.buffers[entry.buffer].data).decode().split("\n") == labels
    np.testing.assert_array_equal(run(data, inputs), run(tfmcu_prune.convert(model, inputs), inputs))


def test_a_file_over_its_budget_is_not_handed_out() -> None:
    model = randomize(nets.plain())
    inputs = inputs_for(model)
    fits = tfmcu_prune.footprint(tfmcu_prune.convert(model, inputs))
    data = tfmcu_prune.convert(model, inputs, budget=Budget(fits.arena, fits.flash, fits.macs))
    assert len(data) == fits.flash
    with pytest.raises(BudgetError, match="flash exceeds its budget by 1:"):
        tfmcu_prune.convert(model, inputs, budget=Budget(flash=fits.flash - 1))
    with pytest.raises(BudgetError, match="flash exceeds"):  # labels count
        tfmcu_prune.convert(model, inputs, budget=Budget(flash=fits.flash), labels=["some", "names", "of", "classes"])


_IN_A_PROCESS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import keras, nets, tfmcu_prune
from networks import inputs_for, randomize
keras.utils.set_random_seed(0)
model = randomize(nets.two_in_two_out())
data = tfmcu_prune.convert(model, inputs_for(model, 20), labels=["a", "b", "c"])
print(hashlib.sha256(data).hexdigest())
"""


def test_bytes_are_the_same_in_every_process() -> None:
    hashes = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", _IN_A_PROCESS, str(Path(__file__).parent)]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        hashes.add(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(hashes) == 1
