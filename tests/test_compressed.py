"""The models of `tfmcu-prune zoo`: what their cards say is computed again."""

from __future__ import annotations

import configparser
import dataclasses
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import cli, compressed, datasets, tflm

ROOT = Path(__file__).resolve().parent.parent
FOLDER = resources.files("tfmcu_prune") / "compressed" / "models"
NAMES = compressed.names()


def test_there_are_models_of_several_tasks():
    assert len(NAMES) >= 6
    assert {compressed.card(name).dataset for name in NAMES} == {"digits", "mnist5k", "fashion-mnist"}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_within_its_budget_and_costs_what_its_card_says(name):
    card, data = compressed.card(name), compressed.model(name)
    cost = tfmcu_prune.footprint(data)
    cost.require(card.budget)
    assert cost.resources == card.footprint
    assert set(card.budget.limits()) == {"arena", "flash", "macs"}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_as_good_as_its_card_says_on_the_sample(name):
    card = compressed.card(name)
    x, y = compressed.sample(card.dataset)
    assert x.shape == (100, *card.input_shape)
    outputs = tflm.run(compressed.model(name), x)
    assert outputs.shape == (100, len(card.classes))
    assert np.mean(outputs.argmax(-1) == y) == card.accuracy_sample


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_flatter(name):
    """The share of the sample is what one expects of 100 draws at the accuracy on all test samples, four sigma."""
    card = compressed.card(name)
    spread = np.sqrt(card.accuracy * (1 - card.accuracy) / 100)
    assert abs(card.accuracy_sample - card.accuracy) <= 4 * spread
    assert card.accuracy > 0.75


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("digits")])
def test_a_model_is_as_good_as_its_card_says_on_all_test_samples(name, capsys):
    assert cli.main(["zoo", "run", name, "--data"]) == 0
    told = f"{compressed.card(name).accuracy:.2%}"
    assert capsys.readouterr().out == (
        f"{name}: accuracy {told} of 360 test samples of digits; the card says {told}\n"
    )  # fmt: skip


@pytest.mark.parametrize("dataset", ["digits", "mnist5k"])
def test_the_sample_is_the_beginning_of_the_test_split(dataset):
    data, (x, y) = datasets.load(dataset), compressed.sample(dataset)
    np.testing.assert_array_equal(x, data.x_test[:100])
    np.testing.assert_array_equal(y, data.y_test[:100])


@pytest.mark.skipif(not datasets.FASHION_MNIST_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_sample_of_fashion_mnist_is_the_beginning_of_the_test_split():
    data, (x, y) = datasets.load("fashion-mnist", limit=200), compressed.sample("fashion-mnist")
    np.testing.assert_array_equal(x, data.x_test[:100])
    np.testing.assert_array_equal(y, data.y_test[:100])


@pytest.mark.parametrize("name", NAMES)
def test_a_card_survives_json_and_names_what_made_it(name):
    card = compressed.card(name)
    assert compressed.from_json(json.loads(json.dumps(dataclasses.asdict(card)))) == card
    assert card.name == name
    assert card.command == f"python tools/make_zoo.py --only {name}"
    assert f'"{name}": Entry(' in (ROOT / "tools" / "make_zoo.py").read_text()


def test_every_data_set_has_a_licence():
    for name in NAMES:
        card = compressed.card(name)
        assert card.licence in ("CC BY 4.0", "CC BY-SA 3.0", "MIT")
        assert f"## {card.dataset}.npz" in compressed.notice()


def test_the_files_are_small_and_packaged():
    files = [path for path in FOLDER.iterdir() if path.name != "NOTICE.md"]
    expected = {f"{name}.{kind}" for name in NAMES for kind in ("tflite", "json")}
    assert {path.name for path in files} == expected | {"digits.npz", "mnist5k.npz", "fashion-mnist.npz"}
    assert sum(len(path.read_bytes()) for path in files) < 1_000_000
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["tfmcu_prune.compressed"] == "models/*"


@pytest.mark.parametrize("args", [["zoo"], ["zoo", "list"]])
def test_list(args, capsys):
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    for name in NAMES:
        card = compressed.card(name)
        (line,) = (line for line in out.splitlines() if line.startswith(f"| {name} "))
        assert f"{card.accuracy:.2%}" in line
        assert f"{card.footprint.arena / 1024:.1f}" in line


def test_list_needs_neither_keras_nor_numpy():
    code = """
import sys
from tfmcu_prune.cli import main
assert main(["zoo"]) == 0
loaded = {"keras", "tensorflow", "numpy"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_copy_writes_the_model_and_its_card(tmp_path, capsys):
    name = NAMES[0]
    assert cli.main(["zoo", "copy", name, str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / f"{name}.tflite").read_bytes() == compressed.model(name)
    text = (tmp_path / "new" / f"{name}.md").read_text()
    card = compressed.card(name)
    for told in (name, card.task, card.licence, card.command, f"{card.footprint.arena:,} B", f"{card.accuracy:.2%}"):
        assert told in text
    capsys.readouterr()
    assert cli.main(["zoo", "copy", name, str(tmp_path / "new")]) == 2
    assert "Pass --force" in capsys.readouterr().err
    assert cli.main(["zoo", "copy", name, str(tmp_path / "new"), "--force"]) == 0


def test_run_on_the_sample(capsys):
    name = NAMES[0]
    assert cli.main(["zoo", "run", name]) == 0
    told = f"{compressed.card(name).accuracy_sample:.2%}"
    assert f"accuracy {told} of 100 test samples" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["copy", "none", "folder"], ["run", "none"]])
def test_a_model_that_there_is_not(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["zoo", *args]) == 2
    assert f"Expected a model of the zoo: {', '.join(NAMES)}. Received: 'none'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
