"""Files of the command line and the tools: read with clear errors, written whole or not at all.

What is read is untrusted: no code in a file runs, and no file may unpack to more than `MAX_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BYTES = 4 * 2**30  # that a file may hold once it is unpacked
_HDF5, _NPY = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"


def load_model(path: Path) -> Any:
    """Read a Keras model without its compile state; a gated one is stripped.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a .keras or .h5 file, one that Keras cannot rebuild without running code that is in it, or one
            that unpacks to more than `MAX_BYTES`.
    """
    from tfmcu_prune.surgery import strip

    model = load_unstripped(path)
    return strip(model) if is_gated(model) else model


def load_unstripped(path: Path) -> Any:
    """Read a Keras model as it was saved, without its compile state; see `load_model`."""
    if not _starts_with(path, _HDF5):
        _require_zip(path, "a .keras file, as model.save('name.keras') writes it, or a .h5 file")
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, AttributeError, LookupError, OSError, MemoryError, RecursionError) as error:
        raise ValueError(f"Keras cannot load the model {path}: {error}") from error


def is_gated(model: Any) -> bool:
    """Whether a Keras model is what `prunable` returned."""
    from tfmcu_prune.gates import ChannelGates

    return any(isinstance(layer, ChannelGates) for layer in model.layers)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a NumPy .npz file, or the one of a .npy file under the name "".

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another kind of file, one of Python objects, or one of more than `MAX_BYTES`.
    """
    if not _starts_with(path, _NPY):
        return read_npz(path)
    _require_size(path, path.stat().st_size)
    try:
        return {"": np.load(path, allow_pickle=False)}
    except (ValueError, MemoryError) as error:
        raise ValueError(f"NumPy cannot read a plain array from {path}: {error}") from error


def chosen_arrays(path: Path, names: Sequence[str], count: int) -> list[npt.NDArray[Any]]:
    """Read the first `count` samples of each input of a model, in the order of `names`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such a file, or no array for an input.
    """
    arrays = read_arrays(path)
    if len(names) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: expected {'a single array, or ' if len(names) == 1 else ''}one array "
            f"a model input, named {', '.join(names)}. Received: {', '.join(filter(None, arrays)) or 'one array'}"
        )
    flat = [name for name in names if arrays[name].ndim == 0]
    if flat:
        raise ValueError(f"{path} must hold samples along the first axis. Received: a single number for {flat[0]!r}")
    return [arrays[name][:count] for name in names]


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a NumPy .npz file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a .npz file, one of Python objects, or one that unpacks to more than `MAX_BYTES`.
    """
    _require_zip(path, "a .npz file, as numpy.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"NumPy cannot read plain arrays from {path}: {error}") from error
    others = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if others:
        raise ValueError(f"Expected arrays only, as numpy.savez writes them. Received: {path} with {others!r}")
    return arrays


def _starts_with(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _require_zip(path: Path, what: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"No such file: expected {what}. Received: {path}")
    if path.is_dir() or not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected {what}. Received: {path}, which is {'a folder' if path.is_dir() else 'another kind'}."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _require_size(path, sum(entry.file_size for entry in archive.infolist()))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"Expected {what}. Received: {path}, a damaged archive: {error}") from error


def _require_size(path: Path, size: int) -> None:
    """Refuse a file that unpacks to more than `MAX_BYTES`; zipfile never unpacks more than an entry claims."""
    if size > MAX_BYTES:
        raise ValueError(
            f"Expected a file that unpacks to at most {MAX_BYTES:,} bytes. Received: {path}, which claims {size:,}."
        )


@contextlib.contextmanager
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


def require_free(folder: Path, names: Iterable[str], *, force: bool) -> None:
    """Raise an error where `write_all` would: before the work, not after it.

    Raises:
        FileExistsError: One of the files is there, and `force` is not set; or something that is no file is.
        NotADirectoryError: The folder is something else.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder to write to. Received: {folder}, which is a file.")
    there = [name for name in names if (folder / name).is_symlink() or (folder / name).exists()]
    folders = [name for name in there if (folder / name).is_dir()]
    if folders:
        raise FileExistsError(f"{folder} has a folder where a file is to be written: {', '.join(folders)}")
    if there and not force:
        raise FileExistsError(f"{folder} has these files already: {', '.join(there)}. Pass --force to overwrite them.")


def write_all(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> list[Path]:
    """Write all files into a folder, which is made if need be, or none of them.

    Args:
        folder: Where to write.
        files: Contents by name; a name may have folders in it, with "/".
        force: Overwrite files that are there.

    Returns:
        Their paths.

    Raises:
        FileExistsError: A file is there already; see `require_free`.
        OSError: No permission, no space left, and so on; nothing is left behind.
    """
    require_free(folder, files, force=force)
    made: list[Path] = []
    temporary = {folder / name: (folder / name).with_name(f".{Path(name).name}.{os.getpid()}") for name in files}
    try:
        for (path, new), content in zip(temporary.items(), files.values(), strict=True):
            for parent in _missing(path.parent):
                parent.mkdir()
                made.append(parent)
            _write_through(new, content)
        for path, new in temporary.items():
            new.replace(path)
    except OSError as error:
        for new in temporary.values():
            with contextlib.suppress(OSError):
                new.unlink()
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has put something in
                parent.rmdir()
        raise type(error)(
            f"Cannot write to {folder}: {error.strerror or error}. Nothing was written; choose another folder, or mend "
            "its permissions or space."
        ) from error
    return list(temporary)


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the outermost first."""
    return [parent for parent in (folder, *folder.parents) if not parent.exists()][::-1]


def _write_through(path: Path, content: bytes) -> None:
    """Write a file down to the disk, so that a full one is told here."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
