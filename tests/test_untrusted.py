"""Files from strangers: .keras, .h5, .npz, .npy, histories and labels; and whatever a command line holds."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfmcu_prune
from tfmcu_prune import Budget, cli, files
from tfmcu_prune.reporting.charts import lines
from tfmcu_prune.tables import render
from tfmcu_prune.tflm.commands import parse_limits, parse_size

TEXT = st.text(max_size=30)
UNIT = st.builds("{}{}{}".format, st.floats(allow_nan=True), st.sampled_from(["", " "]), st.text("KMGiBkb", max_size=4))


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path):
    """A path that no test may leave a file at."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def _lambda_model(canary: Path) -> keras.Model:
    def touch(x, path=str(canary)):
        from pathlib import Path

        Path(path).touch()
        return x

    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(touch), keras.layers.Dense(2)])
    canary.unlink()  # building it has run the function
    return model


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_no_code_of_a_lambda_runs(kind, canary, tmp_path):
    path = tmp_path / f"model.{kind}"
    _lambda_model(canary).save(path)
    with pytest.raises(ValueError, match="Keras cannot load the model"):
        files.load_model(path)


def test_no_code_of_a_lambda_in_a_gated_layer_runs(canary, tmp_path):
    """A gate unpacks the layer in it, within Keras's safe mode."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2, name="head")])
    tfmcu_prune.prunable(model).save(tmp_path / "model.keras")
    evil = keras.saving.serialize_keras_object(_lambda_model(canary).layers[0])

    def swap(value):
        if isinstance(value, dict) and value.get("class_name") == "Gated":
            value["config"]["layer"] = evil
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            swap(item)

    _rewrite(tmp_path / "model.keras", swap)
    with pytest.raises(ValueError, match="Keras cannot load the model"):
        files.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen")])
def test_no_name_of_a_config_is_imported(module, name, canary, tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")]).save(tmp_path / "model.keras")

    def swap(config):
        layer = config["config"]["layers"][-1]
        layer.update(module=module, class_name=name, registered_name=name, config={"args": [f"touch {canary}"]})

    _rewrite(tmp_path / "model.keras", swap)
    with pytest.raises(ValueError, match="Keras cannot load the model"):
        files.load_model(tmp_path / "model.keras")


def _rewrite(path: Path, change) -> None:
    """Change the configuration in a .keras file."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    change(config)
    contents["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Skipping invalid path during archive extraction")
def test_no_entry_of_an_archive_leaves_it(tmp_path):
    path = tmp_path / "in" / "model.keras"
    path.parent.mkdir()
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")]).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../escaped", "assets/../../escaped", str(tmp_path / "escaped")):
            archive.writestr(name, b"")
    files.load_model(path)
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["model.keras"]


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.99])
def test_a_damaged_archive_is_told(cut, tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")]).save(tmp_path / "model.keras")
    whole = (tmp_path / "model.keras").read_bytes()
    end = whole[whole.rindex(b"PK\5\6") :]
    (tmp_path / "model.keras").write_bytes(whole[: int(cut * len(whole))] + end)
    with pytest.raises(ValueError, match=r"Expected a \.keras file|Keras cannot load"):
        files.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_nothing_is_unpickled(kind, canary, tmp_path):
    (np.savez if kind == "npz" else np.save)(tmp_path / f"a.{kind}", np.array([Canary(canary)], dtype=object))
    with pytest.raises(ValueError, match="NumPy cannot read"):
        files.read_arrays(tmp_path / f"a.{kind}")


def test_a_pickle_in_place_of_an_array(canary, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match="Expected arrays only"):
        files.chosen_arrays(tmp_path / "a.npz", ["x"], 1)


@pytest.mark.parametrize("kind", ["keras", "npz"])
def test_a_file_that_unpacks_to_too_much(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
    path = tmp_path / f"a.{kind}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "x.npy"):
            archive.writestr(name, bytes(600_000))
    assert path.stat().st_size < 10_000
    read = files.load_model if kind == "keras" else files.read_arrays
    with pytest.raises(ValueError, match=r"unpacks to at most 1,000,000 bytes.*claims 1,200,000"):
        read(path)


def test_an_array_that_is_too_large(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MAX_BYTES", 1_000)
    np.save(tmp_path / "a.npy", np.zeros(1_000))
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        files.read_arrays(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_an_array_that_claims_more_than_there_is(kind, tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**45,)})
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        path.write_bytes(buffer.getvalue() + bytes(64))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", buffer.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="NumPy cannot read"):
        files.read_arrays(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": [1e999999, "1e400", [1]]}', f'{{"a": [{"9" * 400}]}}', "{}]", '{"a": 1}', "[]"]
)
def test_a_history_that_is_none(text, tmp_path, capsys):
    (tmp_path / "history.json").write_text(text)
    arguments = ["report", "none.keras", "--calibration", "none.npz", "--output", str(tmp_path / "out")]
    assert cli.main([*arguments, "--history", str(tmp_path / "history.json")]) == 2
    assert "Expected the history of a training" in capsys.readouterr().err


@pytest.mark.parametrize("line", [[], [1.0, math.nan], [math.inf]])
def test_a_series_that_cannot_be_drawn(line):
    with pytest.raises(ValueError, match="Expected finite numbers"):
        lines("Accuracy", [("accuracy", line)], str)


def test_a_name_of_a_layer_does_not_steer_the_terminal(tmp_path, capsys):
    layer = keras.layers.Dense(3, name="[red]\x1b[2J\u202e")
    keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    assert cli.main(["inspect", str(tmp_path / "model.keras")]) == 0
    out = capsys.readouterr().out
    assert "[red]?[2J?" in out
    assert "\x1b" not in out


@settings(deadline=None)
@given(TEXT)
def test_no_name_is_markup_in_a_table(text):
    table = render(("layer",), [(f"[red]{text}",), ("[/]",), ("\x1b[2J\u202e",)])
    assert "[/]" in table
    assert "[red]" in table
    assert not {"\x1b", "\u202e", "\r", "\x07"} & set(table)


@settings(deadline=None)
@given(TEXT | UNIT)
def test_any_text_is_a_budget_or_an_error(text):
    for read in (lambda t: Budget(arena=t), lambda t: Budget(macs=t), parse_limits, parse_size):
        with contextlib.suppress(ValueError):
            assert read(text) is not None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from(["estimate", "boards", "export", "convert", "--json", "--require", "arena=1KiB", "--target",
                         "cmake", "zephyr", "--name", "--output", "--input", "--labels", "--processor", "FILE", "DIR"])
        | TEXT.filter(lambda text: not text.startswith(("-", "/", "."))),
        max_size=8,
    ),
    st.binary(max_size=200),
)  # fmt: skip
def test_any_command_line_ends_in_an_exit_code(tmp_path, monkeypatch, arguments, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.tflite").write_bytes(content[:4] + b"TFL3" + content)
    names = {"FILE": str(tmp_path / "file.tflite"), "DIR": str(tmp_path / "out")}
    try:
        code = cli.main([names.get(argument, argument) for argument in arguments])
    except SystemExit as done:
        code = done.code
    assert code in (0, 1, 2)
    assert {path.name for path in tmp_path.iterdir()} <= {"file.tflite"}
