"""`tfmcu-prune convert` and tools/convert.py as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import more_nets
import nets
import numpy as np
import pytest
from networks import inputs_for, randomize

import tfmcu_prune
from tfmcu_prune import cli, zoo

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "convert.py"
MODELS = {  # the file that each is saved as, without training
    "ds_cnn.keras": lambda: zoo.ds_cnn((16, 10, 1), 4, width=8),
    "resnet8.h5": lambda: zoo.resnet8((16, 16, 3), 4, width=4),
    "mobilenet_v1": lambda: zoo.mobilenet_v1((32, 32, 3), 2, alpha=0.125),
    "mobilenet_v2.keras": lambda: zoo.mobilenet_v2((16, 16, 3), 4, alpha=0.1),
    "vgg_small.keras": lambda: zoo.vgg_small((16, 16, 1), 4, widths=(4, 4, 8, 8, 8)),
    "fc_autoencoder.keras": lambda: zoo.fc_autoencoder(64, width=16),
    "tcn.keras": lambda: zoo.tcn((32, 6), 5, width=8, blocks=2),
    "unet.keras": lambda: zoo.unet((16, 16, 1), 2, width=4, depth=1),
    "two_inputs.keras": nets.two_in_two_out,
    "gru.keras": more_nets.gru,
}
FILES = {"gated.tflite", "gated.cc", "gated.h", "op_resolver.h", "arena.h", "model.json"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A gated model with half of its channels masked, in every form, and calibration samples."""
    folder = tmp_path_factory.mktemp("convert")
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(6, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    gated = tfmcu_prune.prunable(keras.Model(inputs, keras.layers.Dense(3)(x)))
    tfmcu_prune.set_mask(gated, np.array([True, False] * 3))
    gated.save(folder / "gated.keras")
    small = tfmcu_prune.strip(gated)
    small.save(folder / "small.keras")
    samples = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    np.savez(folder / "samples.npz", image=samples)
    np.save(folder / "samples.npy", samples)
    np.savez(folder / "wrong.npz", image=np.zeros((20, 9, 8, 1), np.float32))
    np.savez(folder / "many.npz", a=np.zeros((20, 8, 8, 1)), b=np.zeros(3))
    (folder / "text.tflite").write_text("not a model")
    (folder / "text.h5").write_text("not a model")
    (folder / "labels.txt").write_text("yes\nno\n")
    (folder / "empty").mkdir()
    (folder / "model.tflite").write_bytes(tfmcu_prune.convert(small, calibration=samples))
    return folder


def _arguments(files, output, model="gated.keras", calibration="samples.npz"):
    return [str(files / model), "--calibration", str(files / calibration), "--output", str(output)]


def _call(*arguments):
    try:
        return cli.main(["convert", *arguments])
    except SystemExit as error:  # argparse
        return error.code


def test_the_script_writes_all_files_and_their_contents_agree(files, tmp_path):
    command = [sys.executable, str(SCRIPT), *_arguments(files, tmp_path / "out"), "--arena", "64KiB"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    data = (tmp_path / "out" / "gated.tflite").read_bytes()
    fp, card = tfmcu_prune.footprint(data), json.loads((tmp_path / "out" / "model.json").read_text())
    assert fp.macs == 6 * 6 * 9 * 3 + 3 * 3
    assert card["footprint"] == json.loads(json.dumps(fp.to_dict()))
    assert [(i["name"], i["shape"], i["type"]) for i in card["inputs"]] == [("image", [1, 8, 8, 1], "int8")]
    assert card["operators"] == ["CONV_2D", "FULLY_CONNECTED", "MEAN"]
    assert card["versions"]["keras"] == keras.__version__
    assert f"kArenaSize = {fp.arena};" in (tmp_path / "out" / "arena.h").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning")
@pytest.mark.parametrize("file", MODELS)
def test_the_script_on_networks(tmp_path, file):
    """Each in a process of its own; no file says anything else than the .tflite."""
    model, path, out = randomize(MODELS[file]()), tmp_path / file, tmp_path / "out"
    model.save(path) if path.suffix else model.export(path, verbose=False)
    samples = keras.tree.flatten(inputs_for(model, 20))
    np.savez(tmp_path / "samples.npz", **{i.name: x for i, x in zip(model.inputs, samples, strict=True)})
    command = [sys.executable, str(SCRIPT), *_arguments(tmp_path, out, file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data, card = (out / f"{path.stem}.tflite").read_bytes(), json.loads((out / "model.json").read_text())
    fp = tfmcu_prune.footprint(data)
    assert card["footprint"] == json.loads(json.dumps(fp.to_dict()))
    assert fp.flash == len(data)
    assert f"kArenaSize = {fp.arena};" in (out / "arena.h").read_text()
    array = (out / f"{path.stem}.cc").read_text().partition("{")[2]
    assert bytes(int(value, 16) for value in re.findall("0x[0-9a-f]{2}", array)) == data
    assert [i["shape"] for i in card["inputs"]] == [[1, *i.shape[1:]] for i in model.inputs]
    assert [o["shape"] for o in card["outputs"]] == [[1, *o.shape[1:]] for o in model.outputs]


@pytest.mark.parametrize(("model", "calibration"), [("small.keras", "samples.npy"), ("model.tflite", "none")])
def test_other_forms_of_a_model_give_the_same_file(files, tmp_path, model, calibration):
    assert _call(*_arguments(files, tmp_path / "out", model, calibration), "--name", "Gated!") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert (tmp_path / "out" / "gated.tflite").read_bytes() == (files / "model.tflite").read_bytes()


@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning")
def test_h5_and_saved_models_compute_the_same(files, tmp_path):
    small, x = keras.saving.load_model(files / "small.keras"), np.load(files / "samples.npy")
    small.save(tmp_path / "small.h5")
    small.export(tmp_path / "saved", verbose=False)
    expected = tfmcu_prune.tflm.run(files / "model.tflite", x)
    for model in ("small.h5", "saved"):
        output = tmp_path / "out" / model
        assert _call(*_arguments(files, output, tmp_path / model), "--name", "small") == 0
        np.testing.assert_array_equal(tfmcu_prune.tflm.run(output / "small.tflite", x), expected)


def test_labels_are_in_the_card_and_must_fit(files, tmp_path, capsys):
    arguments = _arguments(files, tmp_path / "out", "model.tflite")
    assert _call(*arguments, "--labels", str(files / "labels.txt")) == 2
    assert "as many labels as the model's last output has values, 3. Received: 2" in capsys.readouterr().err
    (tmp_path / "labels.txt").write_text('yes\nno\n"; system("rm")\n')
    assert _call(*arguments, "--labels", str(tmp_path / "labels.txt")) == 0
    assert json.loads((tmp_path / "out" / "model.json").read_text())["labels"][2] == '"; system("rm")'


@pytest.mark.parametrize(
    ("changed", "more", "code", "message"),
    [
        ({}, ["--arena", "1KiB"], 1, "arena exceeds its budget"),
        ({}, ["--arena=-1"], 2, "must be positive"),
        ({}, ["--samples", "0"], 2, "expected a whole number from 1 up"),
        ({"model": "none.keras"}, [], 2, "No such file: expected a .keras, .h5 or .tflite file"),
        ({"model": "none.tflite"}, [], 2, "No such file"),
        ({"model": "samples.npz"}, [], 2, "Keras cannot load the model"),
        ({"model": "text.tflite"}, [], 2, "TFL3"),
        ({"model": "text.h5"}, [], 2, "Expected a .keras file"),
        ({"model": "empty"}, [], 2, "Expected a SavedModel, a folder with saved_model.pb"),
        ({"calibration": "none.npz"}, [], 2, "No such file: expected a .npz file"),
        ({"calibration": "labels.txt"}, [], 2, "Expected a .npz file"),
        ({"calibration": "wrong.npz"}, [], 2, "calibration set does not fit"),
        ({"calibration": "many.npz"}, [], 2, "lacks image: expected a single array"),
    ],
)
def test_errors_leave_no_file(files, tmp_path, capsys, changed, more, code, message):
    assert _call(*_arguments(files, tmp_path / "out", **changed), *more) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_calibration_is_asked_for(files, tmp_path, capsys):
    assert _call(str(files / "small.keras"), "--output", str(tmp_path / "out")) == 2
    assert "Expected --calibration FILE" in capsys.readouterr().err


def test_files_that_are_there_stay_without_force(files, tmp_path, capsys):
    (tmp_path / "arena.h").write_text("mine")
    arguments = _arguments(files, tmp_path, "model.tflite")
    assert _call(*arguments) == 2
    assert "arena.h. Pass --force to overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["arena.h"]
    assert _call(*arguments, "--force") == 0
    assert "kArenaSize" in (tmp_path / "arena.h").read_text()


def test_a_folder_without_permission(files, tmp_path):
    """The superuser may write anywhere, so the command runs without that privilege."""
    command = [sys.executable, str(SCRIPT), *_arguments(files, tmp_path / "locked" / "out", "model.tflite")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv (util-linux) to give up the superuser's privileges")
        dropped = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--inh-caps={dropped}", f"--bounding-set={dropped}", *command]
    (tmp_path / "locked").mkdir(mode=0o500)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Permission denied. Nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "locked").iterdir())


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 8 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(files, full_disk, capsys):
    assert _call(*_arguments(files, full_disk / "out", "model.tflite")) == 2
    assert "No space left on device. Nothing was written" in capsys.readouterr().err
    assert not list(full_disk.iterdir())


def test_help_explains_itself(capsys):
    assert _call("--help") == 0
    out = capsys.readouterr().out
    for part in ("examples:", "exit codes:", "--calibration"):
        assert part in out
