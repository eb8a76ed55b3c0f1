"""What README.md says can be done is done: its Python runs, its commands are commands."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import Budget, cli
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import floor
from tfmcu_prune.rules import Flow, table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# A sweep trains in processes of its own; its tests have it.
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"^ *```python\n(.*?)```", README, flags=re.DOTALL | re.MULTILINE)
    if "tfmcu_prune.sweep(" not in block
]
COMMANDS = re.findall(r"^    tfmcu-prune (.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)


class MyLayer(keras.layers.Layer):
    """What a user would register a rule for."""


def _rule(call, inputs, labels):
    return Flow(inputs[0])


def _names():
    """What README takes for granted: a model, its loss and data, and names of the user's own."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    layers = keras.layers
    backbone = keras.Sequential([keras.Input((6, 6, 8)), layers.Conv2D(12, 3, activation="relu")], name="backbone")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            backbone,
            layers.Conv2D(8, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    x, y = rng.random((64, 8, 8, 1), np.float32), rng.integers(0, 3, 64)
    return {
        "model": model,
        "backbone": backbone,
        "loss": "sparse_categorical_crossentropy",
        "MyLayer": MyLayer,
        "rule": _rule,
        "x": x,
        "y": y,
        "x_test": x[:16],
        "x_val": x[:16],
        "names": ["left", "right", "stop"],
        "y_test": y[:16],
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*HDF5.*:UserWarning")  # of tf_keras
def test_the_first_python_runs_and_each_of_the_others_behind_it(folder, monkeypatch):
    monkeypatch.setattr(table, "TABLE", dict(table.TABLE))  # MyLayer goes again
    names = _names()
    first, *others = (compile(block, "README.md", "exec") for block in BLOCKS)
    exec(first, names)
    for block in others:
        exec(block, dict(names))
    assert len(others) == 5
    assert "Why does it not get smaller?" in (folder / "report.html").read_text()
    assert list((folder / "logs").rglob("*tfevents*"))


def test_fewer_channels_leave_what_the_arena_holds_of_operators():
    names = _names()
    gated = tfmcu_prune.prunable(names["model"])
    mask = np.arange(len(tfmcu_prune.get_mask(gated))) % 2 == 0
    tfmcu_prune.set_mask(gated, mask)
    files = [tfmcu_prune.convert(model, names["x"]) for model in (names["model"], tfmcu_prune.strip(gated))]
    before, after = [tfmcu_prune.footprint(file).parts for file in files]
    for name in ("kernel data", "operators", "tensors", "interpreter"):
        assert before[name] == after[name] > 0
    for name in ("planned", "kernel buffers"):
        assert before[name] > after[name] > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_commands(command):
    assert callable(cli._parser().parse_args(shlex.split(command)).run)


def test_all_links_to_files_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert {Path(link).stem for link in links if link.endswith(".ipynb")} == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }


def test_what_limits_a_model_is_told_before_any_training():
    model = _names()["model"]
    with pytest.raises(tfmcu_prune.BudgetError, match="In the way is the operator"):
        tfmcu_prune.prunable(model, Budget(arena=64))
    least = Budget(macs=floor(resource_model(channel_groups(model))).macs)
    tfmcu_prune.prunable(model, least)
    for keep in ({"fixed": ["stem"]}, {"multiple_of": 4}, {"min_channels": 4}):
        with pytest.raises(tfmcu_prune.BudgetError):
            tfmcu_prune.prunable(model, least, **keep)
