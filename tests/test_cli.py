from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import cli, console


def _run(*args):
    """Run the command as a user does, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "tfmcu_prune.cli", *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, name="first")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x))


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["boards", "--help"], ["estimate", "--help"], ["demo", "--help"]]
)
def test_what_needs_no_keras_does_not_import_it(args):
    code = f"""
import sys
from tfmcu_prune.cli import main
try:
    main({args})
except SystemExit as done:
    assert done.code == 0, done.code
loaded = {{"keras", "tensorflow", "matplotlib", "sklearn"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    out = capsys.readouterr().out
    for command in ("estimate", "boards", "inspect", "demo"):
        assert command in out


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"tfmcu-prune {tfmcu_prune.__version__}\n"


@pytest.mark.parametrize("gated", [False, True])
def test_inspect_shows_groups_and_what_is_fixed(model, gated, tmp_path, capsys):
    (tfmcu_prune.prunable(model) if gated else model).save(tmp_path / "model.keras")
    assert cli.main(["inspect", str(tmp_path / "model.keras")]) == 0
    out = capsys.readouterr().out
    assert "first" in out
    assert "6" in out
    assert "input" in out


def test_inspect_a_file_that_is_not_there(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path / "none.keras")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tfmcu-prune: error: No such file: expected a .keras file")


def test_inspect_a_text_file(tmp_path, capsys):
    path = tmp_path / "model.keras"
    path.write_text("not a model")
    assert cli.main(["inspect", str(path)]) == 2
    assert "Expected a .keras file" in capsys.readouterr().err


def test_inspect_a_zip_that_is_no_model(tmp_path, capsys):
    np.savez(tmp_path / "model.npz", x=np.zeros(3))
    path = (tmp_path / "model.npz").rename(tmp_path / "model.keras")
    assert cli.main(["inspect", str(path)]) == 2
    assert "Keras cannot load the model" in capsys.readouterr().err


def test_inspect_a_layer_without_a_rule(tmp_path, capsys):
    inputs = keras.Input((64, 1))
    layer = keras.layers.SpectralNormalization(keras.layers.Conv1D(3, 1), name="norm")
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    assert cli.main(["inspect", str(tmp_path / "model.keras")]) == 2
    assert "'norm' of type SpectralNormalization" in capsys.readouterr().err


def test_estimate_a_text_file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("not a model")
    code, out, err = _run("estimate", str(path))
    assert (code, out) == (2, "")
    assert err.startswith("tfmcu-prune: ")
    assert "Traceback" not in err


def test_estimate_prints_the_footprint(model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(tfmcu_prune.convert(model, calibration=np.random.default_rng(0).random((8, 8, 8, 1), np.float32)))
    code, out, err = _run("estimate", str(path))
    assert (code, err) == (0, "")
    assert f"{tfmcu_prune.footprint(path.read_bytes()).arena:,}" in out


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    assert "COMMAND" in capsys.readouterr().err


def test_reader_that_stops_early_is_no_error(monkeypatch):
    def print_to_nobody(args):
        raise BrokenPipeError

    class Output:
        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Output())
    assert console.guarded(print_to_nobody, None) == 0


@pytest.mark.parametrize("epochs", ["0", "-1", "many"])
def test_demo_needs_an_epoch(epochs, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", "--epochs", epochs])
    assert f"expected a whole number from 1 up, received '{epochs}'" in capsys.readouterr().err


def test_demo_compares_and_writes(tmp_path, capsys):
    assert cli.main(["demo", "--epochs", "2", "--output", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "accuracy, int8 on TFLM" in out
    names = {"dense.keras", "pruned.keras", "model.tflite", "report.json", "report.md", "picture.png"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
