from __future__ import annotations

import re

import keras
import nets
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from networks import inputs_for, randomize

import tfmcu_prune
from tfmcu_prune.calibration import LIMIT, calibration_arrays

SHAPE = (12, 12, 1)
X = np.random.default_rng(0).random((40, *SHAPE), np.float32)
Y = np.arange(40) % 4


class _Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int):
        chosen = slice(8 * index, 8 * index + 8)
        return X[chosen], Y[chosen]


def _warnings(monkeypatch, model, calibration, convert=calibration_arrays) -> str:
    told: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: told.append(message % values))
    convert(model, calibration)
    return " ".join(told)


@pytest.mark.parametrize(
    "calibration",
    [
        X,
        [X],
        list(X),
        keras.ops.convert_to_tensor(X),
        tf.data.Dataset.from_tensor_slices(X),
        tf.data.Dataset.from_tensor_slices((X, Y)),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
        _Batches(),
        (x[None] for x in X),
        ([x[None]] for x in X),  # as the representative data set of TensorFlow Lite
        iter([(X[:30], Y[:30]), (X[30:], Y[30:])]),
    ],
    ids=[
        "array",
        "list",
        "samples",
        "tensor",
        "dataset",
        "x and y",
        "batches",
        "PyDataset",
        "generator",
        "lists",
        "iter",
    ],
)
def test_every_source_gives_the_same_samples(calibration) -> None:
    (array,) = calibration_arrays(nets.plain(), calibration)
    np.testing.assert_array_equal(array, X)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: tf.data.Dataset.from_tensor_slices(x).batch(3)])
def test_several_inputs_by_name(wrap) -> None:
    model = nets.two_in_two_out()
    inputs = dict(zip([tensor.name for tensor in model.inputs], inputs_for(model, 10), strict=True))
    calibration = iter(made) if isinstance(made := wrap(inputs), list) else made
    for found, given in zip(calibration_arrays(model, calibration), inputs.values(), strict=True):
        np.testing.assert_array_equal(found, given)


def test_the_number_of_samples_is_bounded() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    endless = (np.full((1, 1), i, np.float32) for i in iter(int, 1))
    assert len(calibration_arrays(model, endless)[0]) == LIMIT
    many = np.arange(2001, dtype=np.float32)[:, None]
    (spread,) = calibration_arrays(model, many)
    assert (len(spread), spread[0, 0], spread[-1, 0]) == (LIMIT, 0, 2000)
    assert np.ptp(np.diff(spread[:, 0])) <= 1


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (None, "Expected calibration="),
        (np.zeros((0, 12, 12, 1)), "is empty"),
        ([], "is empty"),
        (iter([]), "is empty"),
        (np.zeros((4, 12, 12, 3)), r"Expected shape \(samples, 12, 12, 1\). Received: \(4, 12, 12, 3\)"),
        (np.zeros((12, 12, 1)), "does not fit the input"),
        (np.where(np.arange(40)[:, None, None, None] == 3, np.nan, X), "NaN or infinite values.*Received: 144"),
        (np.full((2, 12, 12, 1), np.inf), "NaN or infinite"),
        (np.full((2, 12, 12, 1), "a"), "Expected calibration numbers"),
        ({"x": np.zeros((2, 12, 12, 1))}, "Expected calibration arrays named"),
        (Y, "look like labels: pass the inputs"),
        (np.eye(4)[Y], "look like labels: pass the inputs"),
        ((X, Y), "a tuple of 2; of .x, y. pass x"),
        (tf.data.Dataset.from_tensor_slices(Y).batch(4), "look like labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "samples",
)
def test_bad_calibration(calibration, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfmcu_prune.convert(nets.plain(), calibration)


def _trained(*before) -> keras.Model:
    """A network whose batch statistics are those of X."""
    model = keras.Sequential([keras.Input(SHAPE), *before, keras.layers.BatchNormalization(), keras.layers.Flatten()])
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    layer.moving_mean.assign([X.mean()])
    layer.moving_variance.assign([X.var()])
    return model


def test_samples_like_those_of_the_training_pass_silently(monkeypatch) -> None:
    assert _warnings(monkeypatch, _trained(), X) == ""
    assert _warnings(monkeypatch, _trained(), (X > 0.5).astype(int)) == ""
    raw = np.round(255 * X).astype(np.uint8)
    assert _warnings(monkeypatch, _trained(keras.layers.Rescaling(1 / 255)), raw) == ""
    rescaled = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3)])
    assert _warnings(monkeypatch, rescaled, raw) == ""


def test_another_range_than_that_of_the_training_is_told(monkeypatch) -> None:
    raw = np.round(255 * X).astype(np.uint8)
    told = _warnings(monkeypatch, _trained(), raw)
    assert "unlike the data that the model was trained on" in told
    assert re.search(r"25\d times", told)
    assert "take only a few of the 256 steps" in told
    assert "be clipped" in _warnings(monkeypatch, _trained(), X / 255)
    told = _warnings(monkeypatch, keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3)]), raw)
    assert "holds integers from 0 to 255" in told


def test_one_sample_and_constant_activations_are_told(monkeypatch) -> None:
    assert "has one sample" in _warnings(monkeypatch, nets.plain(), X[:1])
    model = randomize(nets.plain())
    told = _warnings(monkeypatch, model, np.zeros((4, *SHAPE), np.float32), tfmcu_prune.convert)
    assert "the output of input_layer" in told
    assert "was the same number for all of the calibration set" in told
    assert _warnings(monkeypatch, model, X, tfmcu_prune.convert) == ""
