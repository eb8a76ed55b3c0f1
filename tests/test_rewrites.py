"""Layers written with other operations: the same function as the layer, and as a file."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from networks import inputs_for, outputs_of, randomize

import tfmcu_prune
from tfmcu_prune import UnsupportedLayer
from tfmcu_prune.rewrites import rewritten
from tfmcu_prune.tflm import run

CELLS = [
    *((layers.SimpleRNN, {}), (layers.LSTM, {}), (layers.GRU, {}), (layers.GRU, {"reset_after": False})),
    (layers.LSTM, {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
]


def _vector(value: Any) -> np.ndarray:
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(one)) for one in keras.tree.flatten(value)])


def _assert_same(layer: Any, steps: int, states: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = keras.ops.convert_to_tensor(rng.normal(size=(1, steps, 3)).astype("float32"))
    given = [keras.ops.convert_to_tensor(rng.normal(size=(1, 4)).astype("float32")) for _ in range(states)]
    kwargs = {"initial_state": given} if given else {}
    layer(x, **kwargs)
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    expected, received = layer(x, **kwargs), rewritten(layer)(x, **kwargs)
    assert len(keras.tree.flatten(expected)) == len(keras.tree.flatten(received))
    np.testing.assert_allclose(_vector(received), _vector(expected), atol=1e-5)


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("steps", [1, 4])
def test_recurrent_layers(cell, steps: int) -> None:
    kind, settings = cell
    choices = list(itertools.product([False, True], repeat=5))[:: 2 if steps > 1 else 7]
    for seed, (initial, backwards, bias, sequences, state) in enumerate(choices):
        state = state or seed % 3 == 0
        layer = kind(
            4, go_backwards=backwards, return_sequences=sequences, return_state=state, use_bias=bias, **settings
        )
        _assert_same(layer, steps, initial * (2 if kind is layers.LSTM else 1), seed)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_both_directions(kind, merge_mode: str | None) -> None:
    for seed, (sequences, state, initial) in enumerate(itertools.product([False, True], repeat=3)):
        layer = layers.Bidirectional(kind(4, return_sequences=sequences, return_state=state), merge_mode=merge_mode)
        _assert_same(layer, 3, initial * (4 if kind is layers.LSTM else 2), seed)


@pytest.mark.parametrize("cell", CELLS[:4], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_files_of_recurrent_layers(cell, seed: int) -> None:
    kind, settings = cell
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5, 3))
    x = layers.Bidirectional(kind(4, return_sequences=True, **settings))(inputs)
    x = kind(5, use_bias=False, go_backwards=bool(seed % 2), **settings)(x)
    model = randomize(keras.Model(inputs, layers.Dense(3)(x)), seed)
    samples = inputs_for(model, 50)
    ran, real = np.ravel(run(tfmcu_prune.convert(model, samples), samples)), outputs_of(model, samples)
    assert np.abs(ran - real).max() < 0.05 * np.ptp(real)


def _masked(kind: str) -> keras.Model:
    if kind == "mask_zero":
        inputs = keras.Input((4,), dtype="int32")
        x = layers.Embedding(9, 3, mask_zero=True)(inputs)
    else:
        inputs = keras.Input((4, 3))
        x = layers.Masking()(inputs) if kind == "Masking" else inputs
    kwargs = {"mask": keras.ops.any(keras.ops.not_equal(x, 0), -1)} if kind == "mask" else {}
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(layers.Dropout(0.1)(x), **kwargs)
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(3, name="last")(x)))


@pytest.mark.parametrize("kind", ["mask_zero", "Masking", "mask"])
def test_masks_are_refused(kind: str) -> None:
    model = _masked(kind)
    with pytest.raises(UnsupportedLayer, match=r"'bidirectional\w*' \(Bidirectional\) skips the steps.*Remove"):
        tfmcu_prune.convert(model, inputs_for(model, 4))


@keras.saving.register_keras_serializable("tests")
class _Cell(layers.SimpleRNNCell):
    pass


@pytest.mark.parametrize(
    "layer", [layers.RNN(_Cell(3)), layers.TimeDistributed(layers.GRU(3)), layers.ConvLSTM1D(3, 2)]
)
def test_loops_are_refused(layer) -> None:
    nested = isinstance(layer, layers.TimeDistributed | layers.ConvLSTM1D)
    inputs = keras.Input((4, 3, 2) if nested else (4, 3))
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    with pytest.raises(UnsupportedLayer, match=rf"'{layer.name}'.*loops over its steps.*Replace"):
        tfmcu_prune.convert(model, inputs_for(model, 4))


def test_states_from_one_inference_to_the_next_are_refused() -> None:
    inputs = keras.Input(batch_shape=(1, 4, 3))
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(3, stateful=True, name="keeps")(inputs)))
    with pytest.raises(UnsupportedLayer, match=r"'keeps' \(GRU\) keeps its states.*stateful=False"):
        tfmcu_prune.convert(model, inputs_for(model, 1))
