"""fit(): a cut changes nothing but the time, and callbacks see one training of one model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import nets
import numpy as np
import pytest
from networks import inputs_for, outputs_of, random_mask, randomize
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import PruneCallback, channel_groups, shrinking
from tfmcu_prune.allocation import allocate
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.gating import channels_of

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 100)),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01, clipnorm=1.0),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True),
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cut at the end of each epoch at which channels have gone, and note the MACs left."""
    cuts: list[int] = []

    def pays(relay, epochs: int) -> bool:
        mask = tfmcu_prune.get_mask(relay.gated)
        gone = mask.sum() < (len(mask) if relay.twin is None else relay.twin.kept.sum())
        if gone and epochs:
            cuts.append(int(mask.sum()))
        return bool(gone and epochs)

    monkeypatch.setattr(shrinking._Relay, "_pays", pays)
    return cuts


def _data(model: keras.Model, samples: int = 48) -> tuple[np.ndarray, np.ndarray]:
    y = np.random.default_rng(1).integers(0, 3, samples)
    return inputs_for(model, samples), y


def _gated(net=nets.residual, optimizer: str = "rmsprop", seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = net()
    gated = tfmcu_prune.prunable(model, budget_of(net()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=net is not nets.residual)
    gated.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
    return gated


@pytest.mark.parametrize(
    ("net", "optimizer"),
    [*((nets.residual, name) for name in OPTIMIZERS), (nets.concat, "adam"), (nets.separable, "sgd")],
)
def test_a_cut_changes_neither_the_loss_nor_the_next_step(net, optimizer: str) -> None:
    if optimizer == "ema" and keras.backend.backend() == "jax":
        pytest.skip("Keras 3.15 under JAX cannot train any model a second time after a fit with use_ema")
    gated = _gated(net, optimizer)
    x, y = _data(gated)
    gated.fit(x, y, batch_size=16, verbose=0)
    tfmcu_prune.set_mask(gated, random_mask(channel_groups(net()), 0))
    twin = shrinking._twin(gated)
    before = gated.evaluate(x, y, verbose=0, return_dict=True)
    assert twin.model.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before, rel=1e-5)
    assert twin.model.count_params() < gated.count_params()
    for model in (gated, twin.model):
        model.train_on_batch(x[:16], y[:16])
    for full, small, index in (*twin.weights, *twin.slots):
        value = keras.ops.convert_to_numpy(full)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(small), value if index is None else value[index], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("jit", [False, True])
def test_the_same_as_without_cuts(jit: bool, always: list[int]) -> None:
    """With the mask frozen in the first epoch the two trainings do the same sums."""
    results = []
    for run in (keras.Model.fit, tfmcu_prune.fit):
        gated = _gated(optimizer="sgd")
        gated.compile(gated.optimizer, gated.loss, jit_compile=jit)
        x, y = _data(gated)
        history = run(
            gated, x, y, batch_size=16, epochs=4, shuffle=False, verbose=0, callbacks=[PruneCallback(begin=0, end=1)]
        )
        results.append((history.history["loss"], outputs_of(tfmcu_prune.strip(gated), x)))
    assert len(always) == 1
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def _batches(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while True:
        for start in range(0, len(x), 16):
            yield x[start : start + 16], y[start : start + 16]


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # Keras says so of any fit on a dataset
@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize("source", ["tf.data", "repeated tf.data", "generator"])
def test_sources_of_data(source: str, several: int, always: list[int]) -> None:
    """Each source gives what the arrays give, cut or not, with one or more steps an execution."""
    tensorflow = pytest.importorskip("tensorflow")
    histories = []
    for cut in (False, True):
        gated = _gated(optimizer="sgd")
        gated.compile(gated.optimizer, gated.loss, steps_per_execution=several)
        x, y = _data(gated)
        data = tensorflow.data.Dataset.from_tensor_slices((x, y)).batch(16)
        options = {"epochs": 4, "verbose": 0, "callbacks": [PruneCallback(begin=0, end=3, strength=0.1)]}
        if not cut:
            histories.append(gated.fit(x, y, batch_size=16, shuffle=False, **options).history)
            continue
        if source == "generator":
            history = tfmcu_prune.fit(gated, _batches(x, y), steps_per_epoch=3, **options)
        elif source == "tf.data":
            history = tfmcu_prune.fit(gated, data, **options)
        else:
            history = tfmcu_prune.fit(gated, data.repeat(), steps_per_epoch=3, **options)
        histories.append(history.history)
    assert always
    assert histories[1]["channels"][-1] == histories[0]["channels"][-1]
    assert len(histories[1]["loss"]) == 4
    if source != "generator":  # of which Keras fetches batches ahead, that a cut loses
        np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-4)


class _Witness(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.models: set[int] = set()

    def on_train_begin(self, logs=None) -> None:
        self.seen.append("begin")

    def on_train_end(self, logs=None) -> None:
        self.seen.append("end")

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.seen.append(f"{epoch}")
        self.models.add(id(self.model))
        assert {"arena", "flash", "macs", "channels", "loss", "val_loss"} <= set(logs)


def test_callbacks_see_one_training(always: list[int], tmp_path: Path) -> None:
    gated = _gated()
    x, y = _data(gated)
    witness = _Witness()
    history = tfmcu_prune.fit(
        gated, x, y, batch_size=8, epochs=6, verbose=0, validation_split=0.25,
        callbacks=[
            witness, keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"), PruneCallback(),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
        ],
    )  # fmt: skip
    assert len(always) >= 2
    assert witness.seen == ["begin", *map(str, range(6)), "end"]
    assert witness.models == {id(gated)}
    assert history is gated.history
    assert history.epoch == list(range(6))
    assert history.history["learning_rate"] == pytest.approx([0.01 / n for n in range(1, 7)])
    assert history.history["channels"][-1] == tfmcu_prune.get_mask(gated).sum()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 7
    assert "arena" in lines[0]
    for epoch in (1, 6):
        loaded = keras.models.load_model(tmp_path / f"{epoch}.keras")
        assert loaded.count_params() == gated.count_params()
        assert loaded.optimizer.iterations == epoch * 5  # 36 samples in batches of 8
    assert np.array_equal(outputs_of(loaded, x), outputs_of(gated, x))
    real = tfmcu_prune.footprint(tfmcu_prune.convert(tfmcu_prune.strip(gated), x[:20]))
    real.require(budget_of(nets.residual()))


def test_early_stopping_restores_into_the_gated_model(always: list[int]) -> None:
    gated = _gated()
    x, y = _data(gated)
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=2, restore_best_weights=True, start_from_epoch=3)
    history = tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=20, verbose=0, callbacks=[PruneCallback(0, 12), stop])
    assert always
    assert len(history.epoch) < 20
    assert stop.stopped_epoch == len(history.epoch) - 1
    best = history.history["loss"][stop.best_epoch]
    assert gated.evaluate(x, y, verbose=0)[0] != pytest.approx(history.history["loss"][-1], rel=1e-6)
    assert stop.best == pytest.approx(best)


def test_a_second_fit_goes_on(always: list[int]) -> None:
    gated = _gated()
    x, y = _data(gated)
    first = tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=4, verbose=0)
    mask, weights = tfmcu_prune.get_mask(gated), gated.get_weights()
    again = tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=6, initial_epoch=4, verbose=0)
    assert again.epoch == [4, 5]
    assert first.history["channels"][-1] == mask.sum() >= again.history["channels"][-1]
    assert any((a != b).any() for a, b in zip(weights, gated.get_weights(), strict=True))


def test_what_is_learned_before_an_error_stays(always: list[int]) -> None:
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

    gated = _gated()
    x, y = _data(gated)
    with pytest.raises(KeyboardInterrupt):
        tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=6, verbose=0, callbacks=[Breaks()])
    assert always
    assert int(gated.optimizer.iterations) == 3 * 6


def test_exclusions_from_weight_decay_stay(always: list[int]) -> None:
    gated = _gated()
    gated.compile(keras.optimizers.SGD(1e-9, weight_decay=5e8), gated.loss)
    gated.optimizer.exclude_from_weight_decay(var_names=["gamma"])
    x, y = _data(gated)
    gates_of(gated).mask.assign(np.arange(gates_of(gated).count) % 2)
    tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=3, verbose=0, callbacks=[PruneCallback(0, 1)])
    norms = [layer for layer in tfmcu_prune.strip(gated).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert always
    for norm in norms:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(norm.gamma), 1, atol=1e-4)
    kernels = [w for w in tfmcu_prune.strip(gated).trainable_weights if w.name == "kernel"]
    assert max(np.abs(keras.ops.convert_to_numpy(kernel)).max() for kernel in kernels) < 0.01  # these decay


def test_an_optimizer_that_cannot_be_cut(always: list[int], caplog: pytest.LogCaptureFixture) -> None:
    gated = _gated()
    gated.compile(keras.optimizers.Adafactor(0.01), gated.loss)
    x, y = _data(gated)
    caplog.set_level("WARNING", logger="absl")
    history = tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=4, verbose=0)
    assert len(history.epoch) == 4
    assert caplog.text.count("is not cut while it trains") == 1


def test_a_loss_that_cannot_be_found_again(always: list[int], caplog: pytest.LogCaptureFixture) -> None:
    gated = _gated()

    def mine(y, p):
        return keras.losses.sparse_categorical_crossentropy(y, p)

    gated.compile("sgd", mine)
    x, y = _data(gated)
    caplog.set_level("WARNING", logger="absl")
    history = tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=4, verbose=0)
    assert len(history.epoch) == 4
    assert caplog.text.count("is not cut while it trains, since its loss, metrics or optimizer cannot be made") == 1


@pytest.mark.parametrize(("widths", "macs", "multiple_of"), [((8, 16), 4548, 1), ((8, 16, 16), 8222, 4)])
def test_what_is_cut_on_the_way_is_not_missing_at_the_end(
    widths: tuple[int, ...], macs: int, multiple_of: int, always: list[int]
) -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 3))
    for index, width in enumerate(widths):
        x = keras.layers.Conv2D(width, 3, 2 if index else 1, padding="same", activation="relu")(x)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    budget = tfmcu_prune.Budget(macs=macs)  # on the way to it the last group shrinks further than at it
    gated = tfmcu_prune.prunable(keras.Model(inputs, outputs), budget, multiple_of=multiple_of)
    gated.compile("sgd", "sparse_categorical_crossentropy")
    tfmcu_prune.fit(gated, *_data(gated), batch_size=8, epochs=6, verbose=0, callbacks=[PruneCallback(begin=0, end=24)])
    assert len(always) > 1
    resources = resource_model(channels_of(gated))
    assert resources.sizes(tfmcu_prune.get_mask(gated)).tolist() == allocate(resources, budget).tolist()


def test_it_cuts_only_where_it_pays() -> None:
    relay = shrinking._Relay(_gated(), [], 10)
    relay.pruning.cost = lambda mask: tfmcu_prune.Resources(0, 0, 100 if mask.all() else 40)  # type: ignore[method-assign]
    mask = tfmcu_prune.get_mask(relay.gated)
    mask[0] = False
    tfmcu_prune.set_mask(relay.gated, mask)
    relay._times, relay._overhead = [0.01] * 99, 3.01  # an epoch takes a second, of which 0.42 can be saved
    relay.pruning.epochs_until_frozen = lambda: 0  # type: ignore[method-assign]
    assert relay._pays(8)
    assert not relay._pays(7)
    relay.pruning.epochs_until_frozen = lambda: 7  # type: ignore[method-assign]
    assert not relay._pays(8)  # the next cut comes before it has paid


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="Expected a compiled model"):
        tfmcu_prune.fit(tfmcu_prune.prunable(nets.plain()), np.ones((4, 12, 12, 1)), np.ones(4))
    with pytest.raises(ValueError, match="without gates"):
        tfmcu_prune.fit(nets.plain(), np.ones((4, 12, 12, 1)), np.ones(4))
    with pytest.raises(ValueError, match="Expected one PruneCallback"):
        tfmcu_prune.fit(_gated(), *_data(_gated()), callbacks=[PruneCallback(), PruneCallback()])


def test_weights_of_a_random_model_survive_a_twin() -> None:
    gated = _gated(nets.squeeze_excite)
    randomize(gated.get_layer(index=2))
    gates = gates_of(gated)
    gates.offset.assign(np.random.default_rng(0).normal(0, 0.2, gates.count))
    gated.optimizer.build(gated.trainable_variables)
    tfmcu_prune.set_mask(gated, random_mask(channel_groups(nets.squeeze_excite()), 2))
    before = gated.get_weights()
    twin = shrinking._twin(gated)
    np.testing.assert_allclose(
        outputs_of(twin.model, inputs_for(gated)), outputs_of(gated, inputs_for(gated)), rtol=1e-5, atol=1e-6
    )
    twin.pull()
    assert all(np.array_equal(a, b) for a, b in zip(before, gated.get_weights(), strict=True))
