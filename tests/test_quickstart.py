"""tools/quickstart.py as a user runs it, on the smallest data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import tfmcu_prune

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "quickstart.py"


def _run(*flags):
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "new"
    readme = folder.parent / "README.md"
    readme.write_text("<!-- results -->\n<!-- end of results -->\n")
    done = _run(
        "--dataset", "digits", "--limit", "600", "--epochs", "2", "--seed", "1", "--output", str(folder),
        "--arena", "12KiB", "--flash", "none", "--macs", "300k", "--readme", str(readme),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "accuracy, int8 on TFLM" in done.stdout
    return folder


def test_it_writes_all_its_files(folder):
    names = {"dense.keras", "pruned.keras", "model.tflite", "report.json", "report.md", "picture.png"}
    assert {path.name for path in folder.iterdir()} == names


def test_it_renews_the_table_and_the_picture_of_a_readme(folder):
    assert "| accuracy, int8 on TFLM |" in (folder.parent / "README.md").read_text()
    assert (folder.parent / "tools" / "quickstart.png").read_bytes() == (folder / "picture.png").read_bytes()


def test_the_report_tells_what_the_files_are(folder):
    found = json.loads((folder / "report.json").read_text())
    fp = tfmcu_prune.footprint((folder / "model.tflite").read_bytes())
    assert (found["dataset"], found["seed"]) == ("digits", 1)
    assert found["budget"] == {"arena": 12 * 1024, "flash": None, "macs": 300_000}
    for name in ("arena", "flash", "macs"):
        assert found["pruned"][name] == getattr(fp, name) < found["dense"][name]
    for name in ("dense", "pruned"):
        assert keras.saving.load_model(folder / f"{name}.keras").count_params() == found[name]["params"]
    for name in ("accuracy_dense", "accuracy_pruned", "accuracy_int8_tflm"):
        assert 0.1 < found[name] <= 1
    assert min(found["seconds_dense"], found["seconds_pruned"]) > 0
    fp.require(tfmcu_prune.Budget(arena="12KiB", macs="300k"))


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--dataset", "mnist6k"], 2, "Unknown data set"),
        (["--dataset", "npz:none.npz"], 2, "No such file"),
        (["--arena", "9KiBs"], 2, "cannot be read"),
        (["digits"], 2, "Expected flags only"),
        (["--dataset", "digits", "--arena", "1KiB"], 1, "cannot be met"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(flags, code, message, tmp_path):
    done = _run(*flags, "--epochs", "1", "--output", str(tmp_path / "new"))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
