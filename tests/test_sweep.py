from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import sweeps

import tfmcu_prune
from tfmcu_prune import Budget, sweeping, tflm
from tfmcu_prune.sweeping import engines
from tfmcu_prune.sweeping.training import Outcome
from tfmcu_prune.sweeping.values import Run, Sweep

FOLDER = Path(__file__).resolve().parent


def _sweep(folder, budgets=(sweeps.SMALL,), **changes):
    settings = {"epochs": 3, "batch_size": 16, "processes": 0, **changes}
    return tfmcu_prune.sweep(sweeps.build_model, sweeps.data(), list(budgets), folder=folder, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep of two budgets and two seeds, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, _sweep(folder, (sweeps.SMALL, sweeps.LARGE), seeds=(0, 4))


def test_figures_are_those_of_the_files(whole):
    folder, found = whole
    assert [run.name for run in found.runs] == [
        f"macs{macs}-seed{seed}" for macs in (1200, 2000) for seed in (0, 4)
    ]  # fmt: skip
    assert not found.failures
    _, validation, test = sweeps.data()
    for run in found.runs:
        assert run.model == folder / "models" / f"{run.name}.tflite"
        cost = tfmcu_prune.footprint(run.model.read_bytes())
        assert (run.arena, run.flash, run.macs) == (cost.arena, cost.flash, cost.macs)
        assert run.macs <= run.budget.macs
        for score, (x, y) in ((run.val, validation), (run.test, test)):
            assert score == pytest.approx(np.mean(tflm.run(run.model, x).argmax(-1) == y))


def test_the_training_prunes_and_learns(whole):
    assert np.mean([run.val_float for run in whole[1].runs]) > 0.6


def test_files_are_whole_and_nothing_else_is_left(whole):
    folder, found = whole
    assert {path.name for path in folder.iterdir()} == {
        "models", "results.jsonl", "settings.json", "table.txt", ".lock",
    }  # fmt: skip
    assert len(list((folder / "models").iterdir())) == 4
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines] == [f"models/{run.name}.tflite" for run in found.runs]
    assert (folder / "table.txt").read_text() == f"{found}\n"


def test_seeds_make_models_of_their_own(whole):
    assert len({run.model.read_bytes() for run in whole[1].runs}) == 4


def test_processes_give_what_this_process_gives_and_one_that_dies_is_named(whole, tmp_path):
    found = _sweep(tmp_path, seeds=(2, 0), fit=sweeps.fit, processes=2)
    (run,), (other, *_) = found.runs, whole[1].runs
    _require_alike(run.model, other.model)
    assert (run.name, run.arena, run.macs) == (other.name, other.arena, other.macs)
    assert [(failure.name, failure.error) for failure in found.failures] == [
        ("macs1200-seed2", "Its process was killed by SIGKILL")
    ]
    assert "failed: macs1200-seed2: Its process was killed by SIGKILL" in str(found)


def test_a_sweep_killed_in_the_middle_goes_on(whole, tmp_path):
    """The second run is at work when the sweep is killed: the first is kept, and no process stays behind."""
    told, folder = tmp_path / "waits", tmp_path / "sweep"
    script = tmp_path / "script.py"
    script.write_text(
        "import sweeps, tfmcu_prune\n"
        "if __name__ == '__main__':\n"
        "    tfmcu_prune.sweep(sweeps.build_model, sweeps.data(), [sweeps.SMALL], seeds=(0, 3), epochs=3,\n"
        f"                      batch_size=16, fit=sweeps.fit, folder={str(folder)!r})\n"
    )
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent)])
    sweep = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": path, "SWEEPS_WAITS": str(told)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(lambda: told.exists() or sweep.poll() is not None)
        assert sweep.poll() is None, "it ended before it could be killed"
    finally:
        sweep.kill()
        sweep.wait()
    _wait_for(lambda: not _lives(int(told.read_text())))
    first = folder / "models" / "macs1200-seed0.tflite"
    _require_alike(first, whole[1].runs[0].model)
    written, lines = first.stat().st_mtime_ns, []
    found = _sweep(folder, seeds=(0, 4), fit=sweeps.fit, tell=lines.append)
    assert [line.split(":")[0] for line in lines] == ["macs1200-seed4"]
    assert first.stat().st_mtime_ns == written
    for run, other in zip(found.runs, whole[1].runs, strict=False):
        _require_alike(run.model, other.model)


def _require_alike(model, other):
    """The same network, up to the order in which threads add."""
    (x, _) = sweeps.data()[2]
    np.testing.assert_allclose(tflm.run(model, x), tflm.run(other, x), atol=0.02)
    assert tfmcu_prune.footprint(model).macs == tfmcu_prune.footprint(other).macs


def _wait_for(happened, seconds=300):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(process):
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_that_fails_is_named_and_loses_no_other(tmp_path):
    """One budget is out of reach, one run raises an error, one goes well."""
    lines = []
    found = _sweep(tmp_path, (sweeps.NONE, sweeps.SMALL), seeds=(1, 0), fit=sweeps.fit, tell=lines.append)
    assert [run.name for run in found.runs] == ["macs1200-seed0"]
    errors = {failure.name: failure.error for failure in found.failures}
    assert list(errors) == ["macs10-seed1", "macs10-seed0", "macs1200-seed1"]
    assert all(errors[f"macs10-seed{seed}"].startswith("BudgetError: ") for seed in (0, 1))
    assert errors["macs1200-seed1"] == "ArithmeticError: seed 1 is out of luck"
    assert [line.split(": ")[:2] for line in lines[2:3]] == [["macs1200-seed1", "failed"]]
    assert lines[-1].startswith("macs1200-seed0: accuracy 0.")


def test_the_dtype_policy_stays(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        _sweep(tmp_path, seeds=(1,), fit=sweeps.fit)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture
def recorded():
    """An engine that trains nothing, and the tasks that it was given."""
    names = []

    def engine(job, tasks, processes, done):
        for task in tasks:
            names.append(task.name)
            figures = {"val": 0.5, "test": 0.5, "val_float": 0.5, "test_float": 0.5, "arena": 1, "flash": 4, "macs": 1}
            error = "no luck" if task.seed == 9 else ""
            done(Outcome(task, {} if error else {**figures, "params": 1, "seconds": 0.0}, b"TFL3", error))

    return engine, names


def test_only_what_is_missing_is_done(tmp_path, recorded):
    engine, names = recorded
    first = _sweep(tmp_path, (sweeps.SMALL,), seeds=(0, 9), engine=engine)
    assert [failure.error for failure in first.failures] == ["no luck"]
    _sweep(tmp_path, (sweeps.SMALL, sweeps.LARGE), seeds=(0, 9), engine=engine)
    assert names == ["macs1200-seed0", "macs1200-seed9", "macs1200-seed9", "macs2000-seed0", "macs2000-seed9"]
    (tmp_path / "models" / "macs1200-seed0.tflite").unlink()
    found = _sweep(tmp_path, (sweeps.SMALL,), engine=engine)
    assert names[5:] == ["macs1200-seed0"]
    assert [run.name for run in found.runs] == ["macs1200-seed0"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2, "the other budget's line stays"


@pytest.mark.parametrize("changes", [{"epochs": 4}, {"batch_size": 8}, {"fit": sweeps.fit}])
def test_a_folder_holds_one_kind_of_sweep(tmp_path, recorded, changes):
    _sweep(tmp_path, engine=recorded[0])
    with pytest.raises(ValueError, match=rf"another kind: {next(iter(changes))} was .*Choose another folder"):
        _sweep(tmp_path, engine=recorded[0], **changes)


def test_other_data_or_another_network_is_another_sweep(tmp_path, recorded):
    _sweep(tmp_path, engine=recorded[0])
    (x, y), validation, test = sweeps.data()
    settings = {"folder": tmp_path, "epochs": 3, "batch_size": 16, "engine": recorded[0]}
    with pytest.raises(ValueError, match="another kind: data was"):
        tfmcu_prune.sweep(sweeps.build_model, ((x + 1, y), validation, test), [sweeps.SMALL], **settings)

    def wider():
        model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with pytest.raises(ValueError, match="another kind: model was"):
        tfmcu_prune.sweep(wider, sweeps.data(), [sweeps.SMALL], **settings)


def test_two_sweeps_at_a_time_in_one_folder(tmp_path, recorded):
    def engine(job, tasks, processes, done):
        _sweep(tmp_path, engine=recorded[0])

    with pytest.raises(BlockingIOError, match="Another process sweeps into"):
        _sweep(tmp_path, engine=engine)


def test_a_line_that_is_no_result_is_named(tmp_path, recorded):
    _sweep(tmp_path, engine=recorded[0])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"name": "macs12')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is no result of a sweep"):
        _sweep(tmp_path, engine=recorded[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": []}, r"Expected a list of budgets"),
        ({"budgets": ["16KiB"]}, r"Expected a list of budgets.*16KiB"),
        ({"budgets": [Budget(macs=5), Budget(macs=5)]}, r"each budget and each seed once.*macs5-seed0"),
        ({"seeds": 3}, r"Expected a list of seeds.*Received: 3"),
        ({"engine": "dask"}, r"Expected an engine of local, ray, or a function. Received: 'dask'"),
        ({"metric": "auc"}, r"metric='auc', compiled are \['accuracy'\]"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _sweep(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"Expected data=\(\(x, y\), \(x, y\), \(x, y\)\)"),
        (sweeps.data()[:2], r"Expected data=\(\(x, y\), \(x, y\), \(x, y\)\)"),
        ([(np.zeros((3, 6, 6, 1)), np.zeros(2))] * 3, r"as many samples as labels.*\(3, 2\)"),
    ],
)
def test_data_that_does_not_fit(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        tfmcu_prune.sweep(sweeps.build_model, data, [sweeps.SMALL], folder=tmp_path)


def test_a_model_that_is_not_compiled(tmp_path):
    with pytest.raises(ValueError, match=r"build_model\(\) to return a compiled keras.Model"):
        tfmcu_prune.sweep(lambda: keras.Sequential([keras.Input((2,))]), sweeps.data(), [Budget()], folder=tmp_path)


def test_a_function_that_no_other_process_can_import(tmp_path):
    with pytest.raises(ValueError, match=r"that another process can import.*lambda.*pass processes=0"):
        tfmcu_prune.sweep(lambda: sweeps.build_model(), sweeps.data(), [sweeps.SMALL], folder=tmp_path)


def test_functions_with_arguments_of_their_own(tmp_path, recorded):
    fit = functools.partial(sweeps.fit, shuffle=False)
    _sweep(tmp_path, engine=recorded[0], fit=fit)
    assert json.loads((tmp_path / "settings.json").read_text())["fit"] == "sweeps.fit with () {'shuffle': False}"
    with pytest.raises(ValueError, match="another kind: fit was"):
        _sweep(tmp_path, engine=recorded[0], fit=functools.partial(sweeps.fit, shuffle=True))
    with pytest.raises(ValueError, match=r"that another process can import.*lambda"):
        _sweep(tmp_path / "new", fit=functools.partial(lambda *_: None), processes=1)


def test_ray_is_needed_for_ray_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"engine='ray' needs Ray Tune.*pip install 'tfmcu-prune\[ray\]'"):
        _sweep(tmp_path, engine="ray", processes=1)


def test_tflite_micro_is_missed_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tfmcu-prune\[runtime\]'"):
        _sweep(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_what_processes_give(whole, tmp_path):
    """In a process of its own, since Ray starts servers and warns."""
    script = (
        "import sweeps, tfmcu_prune\n"
        "found = tfmcu_prune.sweep(sweeps.build_model, sweeps.data(), [sweeps.SMALL], seeds=(0, 1, 2), epochs=3,\n"
        f"    batch_size=16, fit=sweeps.fit, folder={str(tmp_path)!r}, engine='ray', processes=2)\n"
        "print(*(f'{failure.name}: {failure.error}' for failure in found.failures), sep='\\n')\n"
    )
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent)])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=True, stdout=subprocess.PIPE
    )
    model = tmp_path / "models" / "macs1200-seed0.tflite"
    _require_alike(model, whole[1].runs[0].model)
    assert b"macs1200-seed1: ArithmeticError: seed 1 is out of luck" in done.stdout
    assert b"macs1200-seed2: Ray's trial" in done.stdout


def _made(*points):
    runs = [
        Run(f"{i}", Budget(), 0, val, val, val, val, arena, flash, macs, 1, 1.0, Path(f"{i}.tflite"))
        for i, (val, arena, flash, macs) in enumerate(points)
    ]
    return Sweep("accuracy", "max", tuple(runs), ())


POINTS = ((0.9, 10, 10, 10), (0.8, 10, 5, 10), (0.7, 11, 5, 10), (0.8, 10, 5, 10), (0.95, 20, 20, 20))


def test_the_front_is_what_nothing_beats():
    made = _made(*POINTS)
    assert [run.name for run in made.front()] == ["0", "1", "3", "4"]
    assert [run.name for run in made.front("arena")] == ["0", "4"]
    lower = dataclasses.replace(made, mode="min")
    assert [run.name for run in lower.front()] == ["1", "2", "3"]
    with pytest.raises(ValueError, match=r"Expected resources of .* Received: rom"):
        made.front("rom")


def test_the_table_marks_the_front():
    marked = [line.split("|")[2].strip() for line in str(_made(*POINTS)).splitlines() if line.startswith("| ")]
    assert marked == ["front", "*", "*", "", "*", "*"]


def test_the_plot_has_a_panel_a_resource():
    figure = _made(*POINTS).plot()
    assert [ax.get_xlabel() for ax in figure.axes] == ["arena, KiB", "flash, KiB", "MACs, thousands"]
    (every, front), *_ = (ax.get_lines() for ax in figure.axes)
    assert len(every.get_xdata()) == 5
    assert list(front.get_ydata()) == [0.9, 0.95]


def test_nothing_to_plot():
    with pytest.raises(ValueError, match="Expected runs to draw"):
        _made().plot()


def test_engines_are_those_of_the_documentation():
    assert list(engines.ENGINES) == ["local", "ray"]
    assert set(sweeping.__all__) >= {"sweep", "Run", "Failure", "Sweep"}
