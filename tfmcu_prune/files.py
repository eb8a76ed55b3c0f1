"""Files of the command line and the tools: read with clear errors, written whole or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def load_model(path: Path) -> Any:
    """Read a Keras model without its compile state; a gated one is stripped.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a .keras file, or one that Keras cannot rebuild.
    """
    _require_zip(path, "a .keras file, as model.save('name.keras') writes it")
    import keras

    from tfmcu_prune.gates import ChannelGates
    from tfmcu_prune.surgery import strip

    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"Keras cannot load the model {path}: {error}") from error
    return strip(model) if any(isinstance(layer, ChannelGates) for layer in model.layers) else model


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a NumPy .npz file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a .npz file, or one of Python objects.
    """
    _require_zip(path, "a .npz file, as numpy.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"NumPy cannot read plain arrays from {path}: {error}") from error


def _require_zip(path: Path, what: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"No such file: expected {what}. Received: {path}")
    if path.is_dir() or not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected {what}. Received: {path}, which is {'a folder' if path.is_dir() else 'another kind'}."
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, and rename it to `path` if all went well; else nothing is left behind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # writers go by the suffix
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
