"""tools/convert.py as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfmcu_prune

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "convert.py"


def _run(*flags):
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A gated model with half of its channels masked, and calibration samples."""
    folder = tmp_path_factory.mktemp("convert")
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(6, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    gated = tfmcu_prune.prunable(keras.Model(inputs, keras.layers.Dense(3)(x)))
    tfmcu_prune.set_mask(gated, np.array([True, False] * 3))
    gated.save(folder / "gated.keras")
    tfmcu_prune.strip(gated).save(folder / "small.keras")
    np.savez(folder / "samples.npz", image=np.random.default_rng(0).random((20, 8, 8, 1), np.float32))
    np.savez(folder / "wrong.npz", image=np.zeros((20, 9, 8, 1), np.float32))
    np.savez(folder / "many.npz", a=np.zeros((20, 8, 8, 1)), b=np.zeros(3))
    return folder


def _flags(files, tmp_path, model="gated.keras", calibration="samples.npz"):
    return [
        "--model", str(files / model), "--calibration", str(files / calibration),
        "--output", str(tmp_path / "out" / "model.tflite"),
    ]  # fmt: skip


def test_gated_and_stripped_models_give_the_same_file(files, tmp_path):
    results = []
    for model in ("gated.keras", "small.keras"):
        done = _run(*_flags(files, tmp_path, model), "--report", str(tmp_path / "report.json"), "--arena", "64KiB")
        assert done.returncode == 0, done.stderr
        results.append((tmp_path / "out" / "model.tflite").read_bytes())
    assert results[0] == results[1]
    fp = tfmcu_prune.footprint(results[0])
    assert fp.macs == 6 * 6 * 9 * 3 + 3 * 3
    assert json.loads((tmp_path / "report.json").read_text())["arena"] == fp.arena


@pytest.mark.parametrize(
    ("changed", "more", "code", "message"),
    [
        ({}, ["--arena", "1KiB"], 1, "arena exceeds its budget"),
        ({}, ["--arena", "-1"], 2, "must be positive"),
        ({"model": "none.keras"}, [], 2, "No such file: expected a .keras file"),
        ({"model": "samples.npz"}, [], 2, "Keras cannot load the model"),
        ({"calibration": "none.npz"}, [], 2, "No such file: expected a .npz file"),
        ({"calibration": "wrong.npz"}, [], 2, "calibration set does not fit"),
        ({"calibration": "many.npz"}, [], 2, "lacks image: expected a single array"),
    ],
)
def test_errors_leave_no_file(files, tmp_path, changed, more, code, message):
    done = _run(*_flags(files, tmp_path, **changed), *more)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_explains_itself():
    done = _run("--help")
    assert "Examples:" in done.stdout
    assert "--calibration" in done.stdout
