"""What is learned: data sets in three parts, and the recipe that each is trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from tfmcu_prune import datasets
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.files import read_npz

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Recipe:
    """How a task is trained, the same for every method.

    Args:
        optimizer: "adamw", "muon", or "sgd" with Nesterov momentum.
        learning_rate: At the peak of a one-cycle schedule.
        weight_decay: Of kernels; gates, biases and batch normalizations have none.
        batch_size: Samples a step.
        smoothing: Label smoothing.
        shift: Samples are moved at random by up to (rows, columns).
        flip: Images are mirrored, each in every other epoch.
        mixup: Each sample is mixed with another one, which has this part of it at most, and so are the labels.
    """

    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    batch_size: int = 128
    smoothing: float = 0.1
    shift: tuple[int, int] = (0, 0)
    flip: bool = False
    mixup: float = 0.0

    def at_rate(self, factor: float) -> Recipe:
        """Return the recipe with a multiple of its learning rate."""
        return dataclasses.replace(self, learning_rate=factor * self.learning_rate)

    def changed(self, **parts: float | str) -> Recipe:
        """Return the recipe with other parts, each in the type that it has here."""
        return dataclasses.replace(self, **{name: type(getattr(self, name))(part) for name, part in parts.items()})


@dataclass(frozen=True)
class Task:
    """A data set and its recipe.

    Args:
        load: `(folder) -> arrays`: x_train, y_train, x_test, y_test, and x_val, y_val where the set has them.
        recipe: How it is trained.
    """

    load: Callable[[Path], Arrays]
    recipe: Recipe


def load(name: str, folder: Path, *, limit: int | None = None) -> Dataset:
    """Load a task's data, standardized with the statistics of its training samples.

    The validation split is the set's own, or a tenth of the training samples; it does not depend on the run's seed.

    Args:
        name: A key of TASKS.
        folder: Where the packed sets are; those that are not there come from a package or from keras.datasets.
        limit: At most this many training samples, validation not counted.
    """
    arrays = TASKS[name].load(folder)
    parts: Arrays = {}
    if "x_val" not in arrays:
        parts = _cut(arrays, "train", "val", 0.1)
    parts = {**arrays, **parts}
    if limit is not None and limit < len(parts["x_train"]):
        kept = _cut(parts, "rest", "train", limit / len(parts["x_train"]))
        parts |= {"x_train": kept["x_train"], "y_train": kept["y_train"]}
    axes = tuple(range(parts["x_train"].ndim - 1)) if not name.startswith("speech") else (0, 1)
    mean, deviation = (f(parts["x_train"], axis=axes, dtype=np.float64) for f in (np.mean, np.std))
    for part in ("train", "val", "test"):
        parts[f"x_{part}"] = ((parts[f"x_{part}"] - mean) / deviation).astype(np.float32)
        parts[f"y_{part}"] = parts[f"y_{part}"].astype(np.int64)
    return Dataset(name=name, **parts, classes=int(parts["y_train"].max()) + 1)


def _cut(arrays: Arrays, first: str, second: str, fraction: float) -> Arrays:
    x, y = arrays["x_train"], arrays["y_train"]
    a, b, y_a, y_b = train_test_split(x, y, test_size=fraction, random_state=0, stratify=y)
    return {f"x_{first}": a, f"y_{first}": y_a, f"x_{second}": b, f"y_{second}": y_b}


def _fashion_mnist(folder: Path) -> Arrays:
    data = datasets.load("fashion-mnist")
    return {f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name[:2] in ("x_", "y_")}


def _fashion_mnist_14(folder: Path) -> Arrays:
    """Fashion-MNIST at half the resolution, the mean of 2 x 2 pixels: a quarter of the work."""
    arrays = _fashion_mnist(folder)
    halves = {k: x.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)) for k, x in arrays.items() if k[0] == "x"}
    return {**arrays, **halves}


def _cifar10(folder: Path) -> Arrays:
    path = folder / "cifar10.npz"
    if not path.exists():
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
        return {"x_train": x_train, "y_train": y_train[:, 0], "x_test": x_test, "y_test": y_test[:, 0]}
    arrays = read_npz(path)
    x = {f"x_{part}": _undelta(arrays[f"r_{part}"]) for part in ("train", "test")}
    return {**x, "y_train": arrays["y_train"], "y_test": arrays["y_test"]}


def _undelta(residuals: Any) -> Any:
    """From differences of the planes G, R-G, B-G, shape (n, 3, 32, 32), to RGB images; modulo 256, lossless."""
    planes = np.cumsum(np.cumsum(residuals, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    planes[:, 1:] += planes[:, :1]
    return planes[:, [1, 0, 2]].transpose(0, 2, 3, 1)


def _speech(folder: Path) -> Arrays:
    arrays = read_npz(folder / "arabic_speech_commands_mfcc.npz")
    parts = ("train", "val", "test")
    return {f"{k}_{part}": arrays[f"{k}_{part}"][..., None] if k == "x" else arrays[f"{k}_{part}"]
            for part in parts for k in ("x", "y")}  # fmt: skip


def _speech11(folder: Path) -> Arrays:
    """The first ten words, and "unknown": as many samples of the other words as one word has."""
    arrays, result = _speech(folder), {}
    for part in ("train", "val", "test"):
        x, y = arrays[f"x_{part}"], np.minimum(arrays[f"y_{part}"], 10)
        known, other = np.flatnonzero(y < 10), np.flatnonzero(y == 10)
        chosen = np.concatenate([known, np.random.default_rng(0).permutation(other)[: len(known) // 10]])
        result |= {f"x_{part}": x[chosen], f"y_{part}": y[chosen]}
    return result


TASKS = {
    "fashion-mnist": Task(_fashion_mnist, Recipe(shift=(2, 2), flip=True)),
    "fashion-mnist-14": Task(_fashion_mnist_14, Recipe(shift=(1, 1), flip=True, batch_size=64, learning_rate=3e-3)),
    "cifar10": Task(_cifar10, Recipe(shift=(4, 4), flip=True, weight_decay=0.05)),
    "speech": Task(_speech, Recipe(shift=(5, 0), batch_size=64, learning_rate=3e-3)),
    "speech11": Task(_speech11, Recipe(shift=(5, 0), batch_size=64, learning_rate=3e-3)),
}
