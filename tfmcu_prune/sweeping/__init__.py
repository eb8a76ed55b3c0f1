"""`sweep`: many budgets and seeds in one call, which goes on where it was stopped."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from absl import logging

from tfmcu_prune.budget import Budget
from tfmcu_prune.files import replacing
from tfmcu_prune.sweeping import values
from tfmcu_prune.sweeping.engines import ENGINES, Engine
from tfmcu_prune.sweeping.training import Job, Outcome, Pair
from tfmcu_prune.sweeping.values import Failure, Mode, Run, Sweep, Task

__all__ = ["Failure", "Run", "Sweep", "sweep"]

_RESULTS, _SETTINGS, _TABLE = "results.jsonl", "settings.json", "table.txt"


def sweep(
    build_model: Callable[[], keras.Model],
    data: tuple[Pair, Pair, Pair],
    budgets: Sequence[Budget],
    *,
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    epochs: int = 20,
    batch_size: int = 32,
    metric: str | None = None,
    mode: Mode = "max",
    fit: Callable[..., Any] | None = None,
    engine: Literal["local", "ray"] | Engine = "local",
    processes: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> Sweep:
    """Prune a network to many budgets, each with many seeds, and compare what comes out.

    Every run builds the model anew, trains it while it is pruned, converts it and runs it on TensorFlow Lite Micro.
    Each run that ends adds its model to `folder/models` and its line to `folder/results.jsonl`, whole or not at all; a
    call with the same folder does only what is missing there, so that a sweep that was stopped, or has got more budgets
    or seeds, goes on. A run that fails is told in `failures`, and the others go on.

    Args:
        build_model: Returns the network, compiled with an optimizer, a loss and at least one metric, with or without
            trained weights. It is called once a run, behind `keras.utils.set_random_seed(seed)`, and once before.
        data: `(x, y)` of the training, the validation and the test samples, NumPy arrays (x may be a list or dict of
            them). Choose by the validation samples and report the test samples.
        budgets: What the networks may cost; an empty `Budget()` trains the network as it is.
        folder: Where models and results go; it is made if need be.
        seeds: Of weights and batches; each budget is run with each.
        epochs: Of the training.
        batch_size: Samples a step.
        metric: Name of the score among the compiled metrics. Default: the first.
        mode: Whether a good score is high ("max") or low ("min").
        fit: What trains, called as `fit(gated, x, y, epochs=, batch_size=, validation_data=, callbacks=, verbose=)`:
            `tfmcu_prune.fit`, or your own for augmentation and the like. Default: `keras.Model.fit`.
        engine: "local": processes of this machine; "ray": trials of Ray Tune, if it is installed; or a function as
            those in `tfmcu_prune.sweeping.engines`.
        processes: Runs at a time. 0 with the local engine: one after the other in this very process, for functions that
            others cannot import, as those of a notebook; Keras' session is cleared before each.
        tell: Called with a line for each run that ends.

    Returns:
        A `Sweep`: `runs`, `failures`, `front()`, `plot()`, and a table as its string; `folder/table.txt` has it, too.

    Raises:
        ValueError: Arguments that do not fit together, or a folder with another sweep in it.
        ImportError: The package tflite-micro is missing, or Ray with `engine="ray"`.
        BlockingIOError: Another process sweeps into this folder right now.

    Example:
        >>> import tempfile
        >>> import keras
        >>> def build_model():
        ...     model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(16, 3, activation="relu"),
        ...                               keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ...     model.compile("adam", loss, metrics=["accuracy"])
        ...     return model
        >>> x = np.random.default_rng(0).normal(size=(48, 6, 6, 1)).astype("float32")
        >>> y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
        >>> data = (x[:32], y[:32]), (x[32:40], y[32:40]), (x[40:], y[40:])
        >>> found = sweep(build_model, data, [Budget(macs=1200), Budget(macs="2k")], epochs=2, processes=0,
        ...               folder=tempfile.mkdtemp())
        >>> [(run.name, run.macs) for run in found.runs]
        [('macs1200-seed0', 1168), ('macs2000-seed0', 1898)]
    """
    engine = _engine(engine)
    tasks = _tasks(budgets, seeds)
    job = Job(build_model, _checked(data), epochs, batch_size, "", fit)
    settings, metric = _settings(job, metric)
    job = Job(build_model, job.data, epochs, batch_size, metric, fit)
    folder = Path(folder)
    with _alone(folder):
        _require_same(folder / _SETTINGS, settings)
        runs = _read(folder)
        missing = [task for task in tasks if task.name not in runs]
        failures: dict[str, Failure] = {}

        def done(outcome: Outcome) -> None:
            name = outcome.task.name
            if outcome.error:
                failures[name] = Failure(name, outcome.task.budget, outcome.task.seed, outcome.error)
                logging.error("tfmcu_prune: the run %s failed: %s\n%s", name, outcome.error, outcome.details)
            else:
                runs[name] = _written(outcome, folder)
                _write(folder, runs)
            left = sum(task.name not in runs and task.name not in failures for task in tasks)
            said = f"failed: {outcome.error}" if outcome.error else f"{metric} {outcome.figures['val']:.4f} (val)"
            tell(f"{name}: {said}; {left} to go")

        if missing:
            engine(job, missing, processes, done)
        found = Sweep(
            metric,
            mode,
            tuple(runs[task.name] for task in tasks if task.name in runs),
            tuple(failures[task.name] for task in tasks if task.name in failures),
        )
        with replacing(folder / _TABLE) as temporary:
            temporary.write_text(f"{found}\n")
        return found


def _engine(engine: str | Engine) -> Engine:
    if importlib.util.find_spec("tflite_micro") is None:
        raise ModuleNotFoundError(
            "A sweep runs its models on TensorFlow Lite Micro, and the package 'tflite-micro' is not installed: "
            "pip install 'tfmcu-prune[runtime]'",
            name="tflite_micro",
        )
    if callable(engine):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"Expected an engine of {', '.join(ENGINES)}, or a function. Received: {engine!r}")
    return ENGINES[engine]


def _tasks(budgets: Sequence[Budget], seeds: Sequence[int]) -> list[Task]:
    if isinstance(budgets, Budget) or not budgets or not all(isinstance(budget, Budget) for budget in budgets):
        raise ValueError(f'Expected a list of budgets, for example [Budget(arena="16KiB")]. Received: {budgets!r}')
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"Expected a list of seeds, for example range(3). Received: {seeds!r}")
    tasks = [Task(budget, int(seed)) for budget in budgets for seed in seeds]
    twice = {task.name for task in tasks if tasks.count(task) > 1}
    if twice:
        raise ValueError(f"Expected each budget and each seed once. Received twice: {', '.join(sorted(twice))}")
    return tasks


def _checked(data: Any) -> tuple[Pair, Pair, Pair]:
    try:
        train, validation, test = (tuple(pair) for pair in data)
        sizes = [(len(keras.tree.flatten(x)[0]), len(y)) for x, y in (train, validation, test)]
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            "Expected data=((x, y), (x, y), (x, y)), arrays of the training, the validation and the test samples. "
            f"Received: {type(data).__name__} ({error})"
        ) from error
    if any(x != y or not x for x, y in sizes):
        raise ValueError(f"Expected as many samples as labels, and some, in each part of data. Received: {sizes}")
    return train, validation, test


def _settings(job: Job, metric: str | None) -> tuple[dict[str, Any], str]:
    """What all runs of a folder have in common, and the name of the score."""
    model = job.build_model()
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(f"Expected build_model() to return a compiled keras.Model. Received: {model!r}")
    (x, y), _, _ = job.data
    predicted = model.predict(keras.tree.map_structure(lambda part: part[:1], x), verbose=0)
    names = [name for name in model.compute_metrics(None, y[:1], predicted) if name != "loss"]
    if not names or (metric or names[0]) not in names:
        raise ValueError(
            f"Expected a metric that the model was compiled with, for example metrics=['accuracy']. "
            f"Received: metric={metric!r}, compiled are {names}"
        )
    layers = [(type(layer).__name__, [weight.shape for weight in layer.weights]) for layer in model.layers]
    compiled = model.get_compile_config()
    if isinstance(compiled["optimizer"], dict):
        compiled["optimizer"]["config"].pop("name")  # Keras numbers optimizers as a process makes them
    settings = {
        "epochs": job.epochs,
        "batch_size": job.batch_size,
        "metric": metric or names[0],
        "fit": "keras.Model.fit" if job.fit is None else _told(job.fit),
        "data": _digest(keras.tree.flatten(job.data)),
        "model": _digest([np.array(repr(layers))]),
        "compiled": _digest([np.array(repr(compiled))]),
    }
    return settings, metric or names[0]


def _told(function: Callable[..., Any]) -> str:
    """A function in words that are the same in every process."""
    if isinstance(function, functools.partial):
        return f"{_told(function.func)} with {function.args} {function.keywords}"
    return f"{function.__module__}.{function.__qualname__}"


def _digest(arrays: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"Another process sweeps into {folder} right now: wait for it, or choose another folder."
            ) from error
        yield


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    """Make sure that the runs in a folder are of this sweep."""
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n")
    there = json.loads(path.read_text())
    other = [name for name in settings if there.get(name) != settings[name]]
    if other:
        told = "; ".join(f"{name} was {there.get(name)!r}, is {settings[name]!r}" for name in other)
        raise ValueError(
            f"{path.parent} holds a sweep of another kind: {told}. Choose another folder, or call with what it was."
        )


def _read(folder: Path) -> dict[str, Run]:
    """The runs that are in a folder with their models, by name."""
    path = folder / _RESULTS
    if not path.exists():
        return {}
    runs = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            runs.append(values.from_json(json.loads(line), folder))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number} is no result of a sweep ({error}). Remove the line; its run is repeated."
            ) from error
    return {run.name: run for run in runs if run.model.is_file() and run.model.stat().st_size == run.flash}


def _written(outcome: Outcome, folder: Path) -> Run:
    """Write the model of a run that went well; return the run."""
    task = outcome.task
    path = folder / "models" / f"{task.name}.tflite"
    with replacing(path) as temporary:
        temporary.write_bytes(outcome.tflite)
    return Run(name=task.name, budget=task.budget, seed=task.seed, model=path, **outcome.figures)


def _write(folder: Path, runs: dict[str, Run]) -> None:
    """Write all lines anew, so that none is ever half written."""
    with replacing(folder / _RESULTS) as temporary:
        temporary.write_text("".join(f"{json.dumps(values.to_json(run, folder))}\n" for run in runs.values()))
