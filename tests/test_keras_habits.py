"""What Keras users have at hand beside fit: TensorBoard, the progress bar, pictures of the graph."""

from __future__ import annotations

import itertools
import logging
import re

import keras
import nets
import numpy as np
import pytest
import tensorflow as tf
from networks import inputs_for
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

import tfmcu_prune
from tfmcu_prune import Budget, PruneCallback
from tfmcu_prune.tflm.schema import read_model

BUDGET = Budget(arena=5000, macs=20_000)
LOGGED = {"arena", "flash", "macs", "channels", "price_arena", "price_macs"}
EPOCHS = 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.random((64, 8, 8, 3), np.float32), rng.integers(0, 3, 64)


def _gated():
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(nets.residual(), BUDGET)
    gated.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return gated


def _events(folder):
    """All that TensorBoard shows of a folder: values by name, one an epoch."""
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.rglob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(tensor_util.make_ndarray(value.tensor))
    return found


@pytest.mark.parametrize("way", ["gated.fit", "tfmcu_prune.fit"])
def test_tensorboard_has_the_logs_and_histograms_of_the_gates(way, data, tmp_path):
    gated = _gated()
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    callbacks = [PruneCallback(), keras.callbacks.TensorBoard(tmp_path, histogram_freq=1), table]
    options = {"epochs": EPOCHS, "batch_size": 8, "verbose": 0, "callbacks": callbacks}
    fit = gated.fit if way == "gated.fit" else lambda *a, **k: tfmcu_prune.fit(gated, *a, **k)
    history = fit(*data, **options).history
    found = _events(tmp_path)
    for name in LOGGED:
        np.testing.assert_allclose(np.ravel(found[f"epoch_{name}"]), history[name], rtol=1e-6)
    assert set((tmp_path / "log.csv").read_text().splitlines()[0].split(",")) >= LOGGED
    for name in ("mask", "offset", "price"):
        assert len(found[f"channel_gates/{name}/histogram"]) == EPOCHS
    left, right, count = found["channel_gates/mask/histogram"][-1].T
    assert count[right > 0.5].sum() == history["channels"][-1] == tfmcu_prune.get_mask(gated).sum()
    assert count[left < 0.5].sum() == (~tfmcu_prune.get_mask(gated)).sum() > 0


def test_the_progress_bar_has_the_figures_once_an_epoch(data, capsys):
    _gated().fit(*data, epochs=EPOCHS, batch_size=8, verbose=1, callbacks=[PruneCallback()])
    out, err = capsys.readouterr()
    lines = [line for line in re.split(r"[\r\n]+|\x08+", out) if line]
    assert [line for line in lines if "Epoch" in line] == [f"Epoch {i}/{EPOCHS}" for i in range(1, EPOCHS + 1)]
    assert all("Epoch" in line or "loss" in line for line in lines)
    told = [line for line in lines if "arena" in line]
    assert len(told) == EPOCHS
    for line, name in itertools.product(told, LOGGED):
        assert f" {name}: " in line
    assert not err


def test_the_conversion_at_the_freeze_is_silent_in_notebooks(data):
    """There TensorFlow's logger tells each temporary file."""
    said: list[logging.LogRecord] = []
    logger, handler = tf.get_logger(), logging.Handler()
    handler.emit = said.append
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        tfmcu_prune.convert(nets.residual(), data[0][:8])
        assert logger.level == logging.INFO
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert not said


def _layer_names(model):
    """The names of all layers that compute something, nested models laid flat."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layer_names(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer.name


@pytest.mark.parametrize("net", [nets.residual, nets.nested, nets.two_in_two_out], ids=lambda net: net.__name__)
def test_a_gated_model_has_the_layers_of_the_model_under_their_names(net):
    model = net()
    gated = tfmcu_prune.prunable(model)
    names = {layer.name for layer in gated.layers if not isinstance(layer, keras.layers.InputLayer)}
    assert names == {*_layer_names(model), "channel_gates"}
    picture = keras.utils.model_to_dot(gated, show_layer_names=True).to_string()
    assert re.findall(r"<b>(\w+)</b> \((\w+)\)", picture) == [(x.name, type(x).__name__) for x in gated.layers]
    for layer in gated.layers:
        assert all(weight.path.startswith(f"{layer.name}/") for weight in layer.weights)


@pytest.mark.parametrize("net", [nets.residual, nets.nested], ids=lambda net: net.__name__)
def test_tensors_of_the_file_have_the_names_of_the_layers(net):
    """Netron shows them; constants have none, and an activation of its own in a layer stands behind a colon."""
    model = net()
    gated = tfmcu_prune.prunable(model)
    tfmcu_prune.set_mask(gated, np.arange(len(tfmcu_prune.get_mask(gated))) % 2 == 0)
    graph = read_model(tfmcu_prune.convert(tfmcu_prune.strip(gated), inputs_for(model))).main
    names = [tensor.name for tensor in graph.tensors if not tensor.constant]
    assert len(names) == len(set(names)) > len(graph.operators)
    assert {name.partition(":")[0] for name in names} <= {layer.name for layer in gated.layers}
    assert not any(tensor.name for tensor in graph.tensors if tensor.constant)
