"""What channels that go meant to their readers is taken over by those that stay."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import more_nets
import nets
import numpy as np
import pytest
import tiny
from keras import layers, ops
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import PruneCallback, reconstruction, shrinking
from tfmcu_prune.gates import gates_of
from tfmcu_prune.reconstruction import reconstruct

NETS = (
    nets.plain, nets.residual, nets.depthwise, nets.squeeze_excite, nets.two_in_two_out, nets.concat_add,
    more_nets.merges, more_nets.dict_inputs, more_nets.layer_norm, more_nets.volume, more_nets.transposed_1d,
    more_nets.nested_twice,
)  # fmt: skip


def _gated(net: Callable[[], keras.Model], seed: int = 0) -> keras.Model:
    """The gated net with weights that are the same under all backends."""
    keras.utils.set_random_seed(0)
    model, rng = randomize(net()), np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0, np.prod(weight.shape[:-1]) ** -0.5, weight.shape))
    return tfmcu_prune.prunable(model)


def _full(gated: keras.Model) -> np.ndarray:
    return np.ones(gates_of(gated).count, bool)


def _kernel(gated: keras.Model, layer: str) -> np.ndarray:
    return np.array(ops.convert_to_numpy(gated.get_layer(layer).layer.kernel))


def _trained(gated: keras.Model, x: Any) -> np.ndarray:
    """The outputs by the statistics of x, which a training's moving statistics come to."""
    for layer in gated.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    gated(x, training=True)
    return outputs_of(gated, x)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_outputs_come_nearer(net: Callable[[], keras.Model]) -> None:
    errors = []
    for seed in range(4):  # one draw of weights and mask may have nothing to exchange
        gated = _gated(net, seed)
        x, mask = inputs_for(gated, 64), random_mask(tfmcu_prune.channel_groups(net()), seed, 0.7)
        outputs = [_trained(gated, x)]
        tfmcu_prune.set_mask(gated, mask)
        outputs.append(_trained(gated, x))
        reconstruct(gated, keras.tree.flatten(x), _full(gated), mask)
        outputs.append(_trained(gated, x))
        errors.append([np.abs(output - outputs[0]).mean() for output in outputs[1:]])
    before, after = np.sum(errors, axis=0)
    assert after < 0.7 * before
    np.testing.assert_array_equal(tfmcu_prune.get_mask(gated), mask)
    small = tfmcu_prune.strip(gated)
    np.testing.assert_allclose(outputs_of(small, x), outputs[2], atol=1e-4 * np.abs(outputs[2]).max())


def test_the_least_squares_of_its_definition() -> None:
    """Against numpy's solver on the equations written out, with gates that have learned something."""
    gated = _gated(nets.dense)
    x = inputs_for(gated, 64)
    offset = np.random.default_rng(1).normal(0, 0.1, gates_of(gated).count)
    gates_of(gated).offset.assign(offset)
    reader = next(layer for layer in gated.layers if isinstance(layer, tfmcu_prune.gates.Gated))
    runs = reader.reads["kernel"][1]
    assert len(runs) == 1
    labels = np.arange(*runs[0])
    mask = _full(gated)
    mask[labels[::3]] = False
    h = keras.Model(gated.inputs, reader.input[0]).predict(x, verbose=0).astype(np.float64)
    w, bias = (np.array(ops.convert_to_numpy(v), np.float64) for v in (reader.layer.kernel, reader.layer.bias))
    inputs, kept = h * (1 + offset)[labels], np.flatnonzero(mask[labels])
    lost = np.delete(np.arange(len(labels)), kept)
    part = inputs[:, kept]
    ridge = np.sqrt(len(part) * reconstruction.RIDGE * part.var(0).mean()) * np.eye(len(kept))
    left = np.block([[part, np.ones((len(part), 1))], [ridge, np.zeros((len(kept), 1))]])
    right = np.concatenate([inputs[:, lost], np.zeros((len(kept), len(lost)))])
    *exchange, constant = np.linalg.lstsq(left, right, rcond=None)[0]
    reconstruct(gated, [x], _full(gated), mask)
    kernel, shifted = (np.array(ops.convert_to_numpy(v)) for v in (reader.layer.kernel, reader.layer.bias))
    np.testing.assert_allclose(kernel[kept], w[kept] + exchange @ w[lost], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shifted, bias + constant @ w[lost], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(kernel[lost], w[lost].astype(np.float32))


@pytest.mark.parametrize("places", [1, 2])
def test_rows_and_their_products_tell_the_same(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a Flatten there are more channels than rows, which are solved by the equations of the rows."""

    def net() -> keras.Model:
        inputs = keras.Input((8, 8, 2))
        x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(inputs))
        return keras.Model(inputs, layers.Dense(places * 3)(layers.Reshape((places, -1))(x)))

    kernels = []
    for few_rows in (True, False):
        gated = _gated(net)
        mask = random_mask(tfmcu_prune.gating.channels_of(gated), 0, 0.6)
        asked: list[tuple[int, int]] = []

        def is_short(rows: int, channels: int, to: Any = asked, answer: bool = few_rows) -> bool:
            to.append((rows, channels))
            return answer

        usual = reconstruction._is_short
        monkeypatch.setattr(reconstruction, "_is_short", is_short)
        reconstruct(gated, [inputs_for(gated, 20)], _full(gated), mask)
        monkeypatch.undo()
        assert usual(*asked[0])
        assert asked[0][0] == 20 * places
        kernels.append(ops.convert_to_numpy(gated.layers[-1].layer.kernel))
    np.testing.assert_allclose(*kernels, rtol=1e-3, atol=1e-5)


def test_moving_statistics_that_lag_behind() -> None:
    """What a training computes is what is put together anew, not what the model would predict at that moment."""
    kernels = []
    for mean in (0.0, 100.0):
        gated = _gated(nets.depthwise)
        for layer in gated.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.moving_mean.assign(np.full(layer.moving_mean.shape, mean))
        mask = random_mask(tfmcu_prune.gating.channels_of(gated), 0)
        reconstruct(gated, [inputs_for(gated, 64)], _full(gated), mask)
        kernels.append([ops.convert_to_numpy(weight) for weight in gated.trainable_weights])
    assert all(np.array_equal(a, b) for a, b in zip(*kernels, strict=True))


@pytest.mark.parametrize("use_bias", [False, True])
def test_kernels_keep_their_length_where_it_is_undone(use_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in front of a batch normalization, and what the model puts out by moving statistics is the same."""

    def net() -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(8, 3, activation="relu")(inputs)
        x = layers.Conv2D(8, 3, use_bias=use_bias, name="undone")(x)
        x = layers.BatchNormalization(epsilon=1e-7)(x)
        x = layers.Conv2D(8, 1, activation="tanh", name="bent")(layers.ReLU()(x))
        x = layers.BatchNormalization()(x)
        x = layers.Conv2D(8, 1, name="read_twice")(x)
        x = layers.Add()([layers.BatchNormalization()(x), x])
        x = layers.Conv2DTranspose(8, 2, strides=2, use_bias=use_bias, name="transposed")(x)
        x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-7)(x))
        return keras.Model(inputs, layers.Dense(4, name="last")(layers.Flatten()(x)))

    names = ("undone", "bent", "read_twice", "transposed", "last")
    mask = random_mask(tfmcu_prune.channel_groups(net()), 0, 0.6)
    found = []
    for is_as_always in (True, False):
        gated = _gated(net)
        x = inputs_for(gated, 64)
        kept = {name: mask[_labels(gated.get_layer(name))] for name in names}
        before = {name: _lengths(gated.get_layer(name), kept[name]) for name in names}
        if not is_as_always:
            monkeypatch.setattr(reconstruction, "_normalization", lambda *_: None)
        reconstruct(gated, [x], _full(gated), mask)
        tfmcu_prune.set_mask(gated, mask)
        same = {name for name in names if np.allclose(_lengths(gated.get_layer(name), kept[name]), before[name])}
        found.append((same, outputs_of(gated, x)))
    (same, outputs), (without, expected) = found
    assert same == {"undone", "transposed"}
    assert without == set()
    np.testing.assert_allclose(outputs, expected, atol=1e-3 * np.abs(expected).max())


def _labels(gate: Any) -> np.ndarray:
    return np.concatenate([np.arange(*run) for run in gate.reads["kernel"][1]])


def _lengths(gate: Any, kept: np.ndarray) -> np.ndarray:
    """Of each output's kernel, over the channels that are kept."""
    kernel = np.moveaxis(np.array(ops.convert_to_numpy(gate.layer.kernel)), gate.reads["kernel"][0], 0)[kept]
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_channels_that_take_turns(others: int, use_bias: bool) -> None:
    """Of two channels one is in, now this one, now that, beside others: nothing of the layer behind grows with it."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2 + others, 3, padding="same", name="maker")(x)
    x = layers.Conv2D(3, 1, use_bias=use_bias, name="reader")(x)
    x = layers.BatchNormalization(name="normalized")(x)
    gated = _gated(lambda: keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    samples = np.random.default_rng(0).normal(size=(64, 6, 6, 2)).astype("float32")
    masks = [_full(gated) for _ in range(2)]
    for channel, mask in enumerate(masks):
        mask[channel] = False

    def largest() -> float:
        weights = (*gated.get_layer("reader").layer.weights, *gated.get_layer("normalized").weights)
        return max(float(np.abs(ops.convert_to_numpy(weight)).max()) for weight in weights)

    reconstruct(gated, [samples], _full(gated), masks[0])
    first = largest()
    for turn in range(40):
        reconstruct(gated, [samples], masks[turn % 2], masks[1 - turn % 2])
    assert largest() < 3 * first


def test_channels_that_come_back() -> None:
    """Of which the others have made up for: they are not counted twice."""
    gated = _gated(nets.plain)
    x, mask = inputs_for(gated, 64), random_mask(tfmcu_prune.channel_groups(nets.plain()), 0, 0.7)
    tfmcu_prune.set_mask(gated, mask)
    before = _trained(gated, x)
    tfmcu_prune.set_mask(gated, _full(gated))
    naive = np.abs(_trained(gated, x) - before).max()
    reconstruct(gated, [x], mask, _full(gated))
    assert np.abs(_trained(gated, x) - before).max() < 0.1 * naive


@pytest.mark.parametrize("before_gates", [True, False])
def test_what_stays_as_it_is(before_gates: bool) -> None:
    """Layers that are not linear in a channel, that are shared or frozen, and inputs that say nothing."""
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(6, 3, activation="relu")(inputs)
    shared = layers.Conv1D(6, 1, name="shared")
    x = shared(shared(x))
    x = layers.Conv1D(8, 1, activation="relu", name="frozen", trainable=not before_gates)(x)
    x = layers.GRU(5, name="recurrent")(layers.Conv1D(8, 1, name="free")(x))
    gated = _gated(lambda: keras.Model(inputs, layers.Dense(2, name="last")(x)))
    if not before_gates:
        gated.get_layer("frozen").trainable = False
    assert not gated.get_layer("frozen").trainable_variables
    mask = random_mask(tfmcu_prune.gating.channels_of(gated), 0)
    before = {weight.path: np.array(ops.convert_to_numpy(weight)) for weight in gated.weights}

    def changed() -> set[str]:
        values = {weight.path: ops.convert_to_numpy(weight) for weight in gated.weights}
        return {
            path.rpartition("/")[0].split("/")[0] for path in before if not np.array_equal(before[path], values[path])
        }

    for value in (np.nan, np.inf, 0.5):  # the last: positions that are all alike
        reconstruct(gated, [np.full((4, 6, 4), value, "float32")], _full(gated), mask)
        assert changed() == set()
    reconstruct(gated, [inputs_for(gated, 40)], _full(gated), mask)
    assert changed() == {"free", "last"}


@pytest.mark.parametrize("run", [keras.Model.fit, tfmcu_prune.fit])
def test_the_callback_reconstructs(run: Callable[..., keras.callbacks.History]) -> None:
    """At each change of the mask, shown by a training that learns nothing."""
    x, masks = tiny.data()[0], []

    class Masks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            masks.append(tfmcu_prune.get_mask(self.model))

    gated, expected = (tiny.gated(keras.optimizers.SGD(0.0)) for _ in range(2))
    tiny.fit(gated, run=run, callbacks=[tiny.pruning(2, 18, calibration=x), Masks()])
    assert tiny.is_within(gated)
    assert len(np.unique(masks, axis=0)) > 2
    for before, after in pairwise([_full(gated), *masks]):
        reconstruct(expected, [x], before, after)
    tfmcu_prune.set_mask(expected, masks[-1])
    np.testing.assert_allclose(gated.predict(x, verbose=0), expected.predict(x, verbose=0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("end", [1, 7])
def test_the_same_as_without_cuts(end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin that trains sees the kernels that are changed in the middle of an epoch."""
    monkeypatch.setattr(shrinking._Relay, "_pays", tiny.always)
    results = []
    for run in (keras.Model.fit, tfmcu_prune.fit):
        gated = tiny.gated(keras.optimizers.SGD(0.01))
        pruning = tiny.pruning(
            1, end, calibration=tiny.data()[0], salience=lambda channels, _: np.arange(channels.count)
        )
        history = tiny.fit(gated, run=run, callbacks=[pruning])
        results.append(history.history["loss"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4)


def test_calibration_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Expected shape \(samples, 6\). Received: \(5, 7\)"):
        tiny.fit(tiny.gated(), callbacks=[PruneCallback(calibration=np.zeros((5, 7)))])
