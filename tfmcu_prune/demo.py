"""The main job end to end: train a network as it is and pruned to a budget, and compare the two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfmcu_prune
from tfmcu_prune import plots, results, tflm
from tfmcu_prune.budget import Budget
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.files import replacing

_CALIBRATION = 200  # samples for the pruning and for quantization


@dataclass(frozen=True)
class Job:
    """What to train and what it may cost.

    Args:
        data: Data of the trainings, the calibration and the final figures.
        network: `(input_shape, classes) -> keras.Model`, with random weights and a softmax at the end.
        budget: What the pruned network may cost.
        epochs: Epochs of the dense training, and as many again of the pruning, which starts from its weights.
        seed: Of weights and batches.
        batch_size: Samples a step.
        learning_rate: Of Adam at the start; it falls to zero along a cosine.
        shift: Training images are moved at random by up to this part of their height and width; 0 leaves them.
        verbose: As in `keras.Model.fit`.
    """

    data: Dataset
    network: Callable[[tuple[int, ...], int], keras.Model]
    budget: Budget
    epochs: int
    seed: int = 0
    batch_size: int = 32
    learning_rate: float = 3e-3
    shift: float = 0.0
    verbose: int = 2


@dataclass(frozen=True)
class Outcome:
    """The two networks and what they do and cost.

    Args:
        report: All the figures.
        dense: The dense Keras model, trained.
        pruned: The pruned one, stripped.
        tflite: The pruned one as int8 .tflite.
    """

    report: results.Report
    dense: keras.Model
    pruned: keras.Model
    tflite: bytes


class _Shifted(keras.utils.PyDataset):
    """Batches of images in a new order and at new places every epoch."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._x, self._y, self._size = job.data.x_train, job.data.y_train, job.batch_size
        self._rng = np.random.default_rng(job.seed)
        self._move = keras.layers.RandomTranslation(job.shift, job.shift, fill_mode="constant", seed=job.seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._x) // self._size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        return keras.ops.convert_to_numpy(self._move(self._x[chosen], training=True)), self._y[chosen]

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._x))


def run(job: Job, *, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Train a network, go on training it while it is pruned to the budget, and compare the two.

    Args:
        job: What to train.
        tell: Called with a line before each stage.

    Raises:
        BudgetError: The budget cannot be met.
    """
    keras.utils.set_random_seed(job.seed)
    dense = job.network(job.data.input_shape, job.data.classes)
    tfmcu_prune.prunable(dense, job.budget)  # a budget that cannot be met is told before any training
    tell(f"1/3 Training the dense network, {job.epochs} epochs")
    seconds_dense = _fit(dense, job, [])

    tell(f"2/3 Pruning it to {job.budget} while it trains on, {job.epochs} epochs")
    gated = tfmcu_prune.prunable(dense, job.budget)
    seconds_pruned = _fit(gated, job, [tfmcu_prune.PruneCallback(calibration=job.data.x_train[:_CALIBRATION])])
    pruned = tfmcu_prune.strip(gated)

    tell(f"3/3 Converting both to int8 and running {len(job.data.x_test):,} test samples on TensorFlow Lite Micro")
    before, _ = _measure(dense, job.data, epochs=job.epochs, seconds=seconds_dense)
    after, tflite = _measure(pruned, job.data, epochs=job.epochs, seconds=seconds_pruned)
    tfmcu_prune.footprint(tflite).require(job.budget)
    samples = {part: len(getattr(job.data, f"x_{part}")) for part in ("train", "val", "test")}
    found = results.Report(dense.name, job.data.name, samples, job.seed, job.budget, before, after)
    return Outcome(found, dense, pruned, tflite)


def write(outcome: Outcome, folder: Path) -> list[Path]:
    """Write both models, the .tflite, report.json, report.md and picture.png into a folder; return their paths."""
    found = outcome.report
    figure = plots.comparison(found.dense.bars, found.pruned.bars, arena=found.budget.arena)
    writers: dict[str, Callable[[Path], Any]] = {
        "dense.keras": outcome.dense.save,
        "pruned.keras": outcome.pruned.save,
        "model.tflite": lambda path: path.write_bytes(outcome.tflite),
        "report.json": lambda path: path.write_text(results.as_json(found)),
        "report.md": lambda path: path.write_text(results.as_markdown(found, picture="picture.png")),
        "picture.png": figure.savefig,
    }
    for name, save in writers.items():
        with replacing(folder / name) as temporary:
            save(temporary)
    return [folder / name for name in writers]


def _fit(model: keras.Model, job: Job, callbacks: list[keras.callbacks.Callback]) -> float:
    """Train a model; return the seconds it took."""
    batches = _Shifted(job)
    schedule = keras.optimizers.schedules.CosineDecay(job.learning_rate, job.epochs * len(batches))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = (job.data.x_val, job.data.y_val)
    start = time.perf_counter()
    model.fit(batches, epochs=job.epochs, validation_data=validation, callbacks=callbacks, verbose=job.verbose)
    return time.perf_counter() - start


def _measure(model: keras.Model, data: Dataset, *, epochs: int, seconds: float) -> tuple[results.Network, bytes]:
    tflite = tfmcu_prune.convert(model, calibration=data.x_train[:_CALIBRATION])
    fp = tfmcu_prune.footprint(tflite)
    float_output = model.predict(data.x_test, batch_size=256, verbose=0)
    network = results.Network(
        accuracy=_accuracy(float_output, data.y_test),
        accuracy_int8=_accuracy(tflm.run(tflite, data.x_test), data.y_test),
        arena=fp.arena,
        flash=fp.flash,
        macs=fp.macs,
        params=model.count_params(),
        epochs=epochs,
        seconds=seconds,
        bars=plots.bars(model, fp),
    )
    return network, tflite


def _accuracy(outputs: Any, labels: Any) -> float:
    return float(np.mean(np.argmax(outputs, axis=-1) == labels))
