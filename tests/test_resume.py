"""A training that is interrupted and taken up again ends where it would have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import tfmcu_prune

FOLDER = Path(__file__).parent


def _killed(
    folder: Path, kind: str, kills: int, epochs: int, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Mask and weights of a whole training, and of one that has been killed so many times."""
    arguments = [str(FOLDER / "resuming.py"), str(folder), kind, str(kills), str(epochs), str(seed)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = []
    for name in ("whole", "killed"):
        with np.load(folder / f"{name}.npz") as arrays:
            results.append([arrays[key] for key in arrays.files])
    return results[0], results[1]


@pytest.mark.parametrize(("kind", "kills"), [("backup", 2), ("fit", 1)])
def test_a_killed_training_ends_the_same(kind: str, kills: int, tmp_path: Path) -> None:
    _check_killed(tmp_path, kind, kills, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("backup", 50), ("saved", 50), ("fit", 50)])
def test_fifty_kills(kind: str, kills: int, tmp_path: Path) -> None:
    _check_killed(tmp_path, kind, kills, 3 * kills)


def _check_killed(folder: Path, kind: str, kills: int, epochs: int) -> None:
    whole, killed = _killed(folder, kind, kills, epochs)
    assert 0 < whole[0].sum() < len(whole[0])
    for a, b in zip(whole, killed, strict=True):
        if kind == "fit":  # a cut sums in another order
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_array_equal(b, a)


def _stream(x: np.ndarray, y: np.ndarray) -> tf.data.Dataset:
    """The data as a dataset that does not tell its length."""
    return tf.data.Dataset.from_tensor_slices((x, y)).filter(lambda *_: True).batch(tiny.BATCH)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # how Keras finds the length out
@pytest.mark.parametrize("stream", [False, True], ids=["arrays", "stream"])
def test_a_saved_model_goes_on(stream: bool, tmp_path: Path) -> None:
    """From before the pruning, from the ramp and from behind the freeze, to the same bits, as Adam's are."""
    data: tuple[Any, ...] = (_stream(*tiny.data()),) if stream else tiny.data()
    options = {"epochs": 20, "shuffle": False, "batch_size": None if stream else tiny.BATCH}
    gated = tiny.gated(keras.optimizers.Adam(0.02), steps_per_execution=1 if stream else 4)
    saves = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    history = tiny.fit(gated, *data, **options, callbacks=[tiny.pruning(), saves])
    channels = history.history["channels"]
    assert channels[0] == 20 > channels[3] > channels[9] == channels[-1]
    for epoch in (4, 12):
        again = keras.models.load_model(tmp_path / f"{epoch}.keras")
        rest = tiny.fit(again, *data, **options, initial_epoch=epoch)
        assert rest.history["channels"] == channels[epoch:]
        for a, b in zip(_state(gated), _state(again), strict=True):
            np.testing.assert_array_equal(a, b)


def _state(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(value) for value in (*model.weights, *model.optimizer.variables)]


def test_files_hold_data_alone(tmp_path: Path) -> None:
    """No pickle, no code: weights, and a configuration of classes that Keras knows by name."""
    gated = tiny.gated("adam")
    tiny.fit(gated, epochs=2)
    for name, model in (("gated", gated), ("small", tfmcu_prune.strip(gated))):
        model.save(tmp_path / f"{name}.keras")
        with zipfile.ZipFile(tmp_path / f"{name}.keras") as file:
            assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
            assert file.read("model.weights.h5")[:8] == b"\x89HDF\r\n\x1a\n"
            classes = _classes(json.loads(file.read("config.json")))
        assert {module.split(".")[0] for module, _ in classes if module} <= {"keras", "builtins", "tfmcu_prune"}
        assert {package for _, package in classes if package} <= {"tfmcu_prune"}
        keras.models.load_model(tmp_path / f"{name}.keras", safe_mode=True)


def _classes(config: Any) -> set[tuple[str | None, str | None]]:
    """Module and registered package of all that a configuration makes."""
    found: set[tuple[str | None, str | None]] = set()
    if isinstance(config, dict):
        assert config.get("class_name") not in ("__lambda__", "Lambda")
        if "class_name" in config and "module" in config:
            name = config.get("registered_name") or ""
            found.add((config["module"], name.partition(">")[0] if ">" in name else None))
        found.update(*map(_classes, config.values()))
    elif isinstance(config, list):
        found.update(*map(_classes, config))
    return found


def test_the_schedule_counts_from_the_first_epoch_with_pruning() -> None:
    """Epochs of training without pruning before it are not epochs of the ramp."""
    gated = tiny.gated()
    tiny.fit(gated, epochs=4, callbacks=[])
    late = tiny.fit(gated, epochs=14, initial_epoch=4).history["channels"]
    assert late == tiny.fit(_with_weights(4), epochs=10).history["channels"]
    assert late[0] == 20
    assert late[1] > late[4] == late[-1]


def _with_weights(epochs: int) -> keras.Model:
    gated = tiny.gated()
    tiny.fit(gated, epochs=epochs, callbacks=[])
    return gated


def test_a_frozen_mask_stays_until_another_is_set(tmp_path: Path) -> None:
    gated = tiny.gated()
    tiny.fit(gated)
    mask = tfmcu_prune.get_mask(gated)
    gated.save(tmp_path / "gated.keras")
    again = keras.models.load_model(tmp_path / "gated.keras")
    history = tiny.fit(again, epochs=8)
    assert set(history.history["channels"]) == {mask.sum()}
    assert np.array_equal(tfmcu_prune.get_mask(again), mask)
    for first in (0, 4):  # a pruning from its beginning, and not the rest of one in an earlier fit
        tfmcu_prune.set_mask(again, np.ones_like(mask))
        history = tiny.fit(again, epochs=first + 8, initial_epoch=first)
        assert history.history["channels"][0] > mask.sum()
        assert tiny.is_within(again)


def test_weights_of_another_training_keep_their_mask(tmp_path: Path) -> None:
    orders = (lambda channels, _: np.arange(channels.count), lambda channels, _: -np.arange(channels.count))
    one, other = (tiny.gated() for _ in orders)
    for gated, salience in zip((one, other), orders, strict=True):
        tiny.fit(gated, callbacks=[tiny.pruning(salience=salience)])
    mask = tfmcu_prune.get_mask(one)
    assert not np.array_equal(mask, tfmcu_prune.get_mask(other))
    one.save_weights(tmp_path / "one.weights.h5")
    other.load_weights(tmp_path / "one.weights.h5")
    x = tiny.data()[0]
    np.testing.assert_allclose(
        tfmcu_prune.strip(other).predict(x, verbose=0), one.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )
    assert np.array_equal(tfmcu_prune.get_mask(other), mask)


def test_a_backup_from_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Keras repeats the epoch; the mask follows, and a frozen one stays."""

    class Dies(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None) -> None:
            if self.model.optimizer.iterations == 2 * tiny.STEPS + 5:
                raise KeyboardInterrupt

    for end in (14, 18):
        gated = tiny.gated()
        backup = keras.callbacks.BackupAndRestore(tmp_path / f"backup{end}", save_freq=4)
        with pytest.raises(KeyboardInterrupt):
            tiny.fit(gated, callbacks=[tiny.pruning(2, end), backup, Dies()])
        mask = tfmcu_prune.get_mask(gated)
        again = tiny.gated()
        history = tiny.fit(again, callbacks=[backup, tiny.pruning(2, end)])
        assert history.epoch == [2, 3]
        assert tiny.is_within(again)
        assert end == 18 or np.array_equal(tfmcu_prune.get_mask(again), mask)
