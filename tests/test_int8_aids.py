"""The variants of tools/quantization.py that change a network before it is converted."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from bench import int8_aids


def _network(activation: str) -> keras.Model:
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = keras.layers.Activation(activation)(keras.layers.BatchNormalization()(x))
    x = keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3, use_bias=False)(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.ReLU()(x))))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.path or "gamma" in weight.path
        weight.assign(rng.uniform(0.2 if positive else -1, 1, weight.shape))
    return model


def _data() -> SimpleNamespace:
    return SimpleNamespace(x_train=np.random.default_rng(1).normal(1, size=(300, 8, 8, 2)).astype("float32"))


def test_equalization_keeps_the_function_and_evens_the_ranges() -> None:
    model, data = _network("relu"), _data()
    balanced = int8_aids.equalized(model, data)
    assert balanced is not None
    outputs = [made.predict(data.x_train, verbose=0) for made in (model, balanced)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    reaches = []
    for made in (model, balanced):
        relu = next(layer for layer in made.layers if isinstance(layer, keras.layers.Activation))
        reach = keras.Model(made.inputs, relu.output).predict(data.x_train, verbose=0).max((0, 1, 2))
        reaches.append(reach.max() / reach[reach > 0].min())
    assert reaches[1] < 0.8 * reaches[0]


def test_equalization_has_nothing_to_do_across_a_bounded_relu() -> None:
    assert int8_aids.equalized(_network("relu6"), _data()) is None


def test_corrected_biases_take_off_the_mean_of_what_rounded_kernels_add() -> None:
    data, errors = _data(), []
    exact = _after_first_norm(_network("relu"), data)
    for correct in (lambda model, _: model, int8_aids.bias_corrected):
        model = correct(_network("relu"), data)
        kernel = keras.ops.convert_to_numpy(model.layers[1].kernel)
        model.layers[1].kernel.assign(kernel + int8_aids._rounding(kernel, depthwise=False))
        errors.append(np.abs((_after_first_norm(model, data) - exact).mean((0, 1, 2))).mean())
    assert errors[1] < 0.5 * errors[0]


def _after_first_norm(model: keras.Model, data: SimpleNamespace) -> np.ndarray:
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    return keras.Model(model.inputs, norm.output).predict(data.x_train, verbose=0)
