"""One run of a sweep: build, prune, convert, measure."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from tfmcu_prune import tflm
from tfmcu_prune.callback import PruneCallback
from tfmcu_prune.converter import convert
from tfmcu_prune.gating import prunable
from tfmcu_prune.surgery import strip
from tfmcu_prune.sweeping.values import Task
from tfmcu_prune.tflm.footprint import footprint

_CALIBRATION = 200  # training samples for the pruning and for quantization

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Job:
    """What all runs of a sweep share; see `sweep`."""

    build_model: Callable[[], keras.Model]
    data: tuple[Pair, Pair, Pair]
    epochs: int
    batch_size: int
    metric: str
    fit: Callable[..., Any] | None


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Args:
        task: What was to be done.
        figures: Fields of `Run` by name; empty if it failed.
        tflite: The model.
        error: Why it failed, in one line; empty if it went well.
        details: The traceback of a failure.
    """

    task: Task
    figures: dict[str, Any]
    tflite: bytes = b""
    error: str = ""
    details: str = ""


def attempt(job: Job, task: Task) -> Outcome:
    """Do a task; an error becomes part of the outcome."""
    try:
        return _train(job, task)
    except Exception as error:
        return Outcome(task, {}, error=f"{type(error).__name__}: {error}", details=traceback.format_exc())


def _train(job: Job, task: Task) -> Outcome:
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()  # names of layers are counted from zero again, so that the file is the same
    keras.config.set_dtype_policy(policy)  # which clear_session forgets
    keras.utils.set_random_seed(task.seed)
    model = job.build_model()
    compiled = model.get_compile_config()
    gated = prunable(model, task.budget)
    gated.compile_from_config(compiled)
    train, validation, test = job.data
    fit = keras.Model.fit if job.fit is None else job.fit
    calibration = _first(train[0], _CALIBRATION)
    start = time.perf_counter()
    fit(gated, *train, epochs=job.epochs, batch_size=job.batch_size, validation_data=validation,
        callbacks=[PruneCallback(calibration=calibration)], verbose=0)  # fmt: skip
    seconds = time.perf_counter() - start
    small = strip(gated)
    small.compile_from_config(compiled)
    tflite = convert(small, calibration=calibration)
    cost = footprint(tflite)
    cost.require(task.budget)
    figures: dict[str, Any] = {"arena": cost.arena, "flash": cost.flash, "macs": cost.macs}
    for name, (x, y) in (("val", validation), ("test", test)):
        figures[name] = _score(small, y, tflm.run(tflite, x), job.metric)
        figures[f"{name}_float"] = _score(small, y, small.predict(x, batch_size=256, verbose=0), job.metric)
    return Outcome(task, {**figures, "params": small.count_params(), "seconds": round(seconds, 1)}, tflite)


def _score(model: keras.Model, y: Any, predicted: Any, metric: str) -> float:
    """Return a compiled metric of given predictions, over all samples at once."""
    model.reset_metrics()
    return float(model.compute_metrics(None, y, predicted)[metric])


def _first(x: Any, count: int) -> Any:
    """The first samples of an array, or of each array of a list or dict."""
    if isinstance(x, dict):
        return {name: part[:count] for name, part in x.items()}
    return [part[:count] for part in x] if isinstance(x, (list, tuple)) else x[:count]
