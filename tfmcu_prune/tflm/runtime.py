"""Run a .tflite file on the real TensorFlow Lite Micro: the interpreter of the tflite-micro wheel."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from . import targets
from .arena import simulate
from .planner import align
from .schema import Model, Tensor, load, read_model

_INSTALL = (
    "TensorFlow Lite Micro runs in the package tflite-micro, which is not installed (or not for this platform). "
    "Install it with: pip install --pre tflite-micro"
)
_FLAT = 1e-8  # the converter gives a tensor that was constant in the calibration a scale below this
_SLACK = 64 * 1024  # what a version of the wheel other than the simulated one may take more
_REPORT = r"Arena allocation (total|head|tail) (\d+) bytes"
_MEASURE = """\
import sys
from tflite_micro.python.tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])).print_allocations()
"""


class Usage(NamedTuple):
    """Arena of the running wheel, bytes: planned head, persistent tail, and both."""

    head: int
    tail: int
    total: int


class Record(NamedTuple):
    """Inputs and outputs as a model has them, quantized: one array each, shape (n, *the tensor's shape)."""

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


def run(
    data: bytes | str | os.PathLike[str], x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
) -> np.ndarray | list[np.ndarray]:
    """Run samples through a model on TensorFlow Lite Micro, one by one.

    Inputs are quantized and outputs dequantized with the model's own scales, rounding to nearest with ties away from
    zero and clipping to the type's range, as TFLite's QUANTIZE does. State (variables) is reset before each sample.

    Args:
        data: The bytes of a .tflite file, or its path.
        x: Real-valued samples, shape (n, ...) without the model's batch axis of 1; for several inputs a sequence
            in the model's order or a dict by the tensors' names.

    Returns:
        Real-valued outputs, float32 of shape (n, ...); a list of them in the model's order if there are several.

    Raises:
        ImportError: tflite-micro is not installed.
        InvalidModel: The bytes are not a .tflite model.
        ValueError: Inputs of the wrong number or shape, or not finite; or TFLM refuses the model (the message
            holds TFLM's own).

    Example:
        >>> import tfmcu_prune
        >>> y = tfmcu_prune.tflm.run("model.tflite", x_test)  # doctest: +SKIP
    """
    raw = load(data)
    graph = read_model(raw).main
    outputs = [graph.tensors[i] for i in graph.outputs]
    raws = record(raw, x).outputs
    results = [_dequantize(tensor, values) for tensor, values in zip(outputs, raws, strict=True)]
    return results[0] if len(results) == 1 else results


def record(
    data: bytes | str | os.PathLike[str], x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
) -> Record:
    """Run samples as `run` does, and return what the model read and wrote, in its own types.

    Args:
        data: The bytes of a .tflite file, or its path.
        x: Real-valued samples, as in `run`.

    Raises:
        ImportError, InvalidModel, ValueError: As `run`.
    """
    raw = load(data)
    model = read_model(raw)
    graph = model.main
    inputs = [graph.tensors[i] for i in graph.inputs]
    outputs = [graph.tensors[i] for i in graph.outputs]
    feeds = [_quantize(tensor, sample) for tensor, sample in zip(inputs, _match(inputs, x), strict=True)]
    if any(tensor.quantized and tensor.scale < _FLAT and not tensor.constant for tensor in graph.tensors):
        measure(raw)  # in a process of its own, because TFLM may abort and take Python with it
    interpreter = _interpreter(raw, model)
    stateful = any(tensor.variable for subgraph in model.subgraphs for tensor in subgraph.tensors)
    return Record(feeds, _invoke(interpreter, feeds, outputs, stateful))


def measure(data: bytes | str | os.PathLike[str]) -> Usage:
    """Return what the running wheel takes of its arena, as its recording allocator prints it.

    The wheel prints to the process's standard error only, so it runs in a process of its own.

    Args:
        data: The bytes of a .tflite file, or its path.

    Returns:
        Head, tail and total of `footprint(data, target="x86-64")`, measured.

    Raises:
        ImportError: tflite-micro is not installed.
        ValueError: TFLM refuses the model; the message holds TFLM's own.
    """
    raw = load(data)
    model = read_model(raw)
    _runtime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(raw)
        command = [sys.executable, "-c", _MEASURE, str(path), str(_arena_bytes(model))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {name: int(value) for name, value in re.findall(_REPORT, done.stderr)}
    if done.returncode or len(found) != 3:
        ended = f" It ended with {signal.Signals(-done.returncode).name}." if done.returncode < 0 else ""
        raise ValueError(
            f"TensorFlow Lite Micro does not run this model.{ended}{_flat(model)} It said: {_said(done.stderr)}"
        )
    return Usage(found["head"], found["tail"], found["total"])


def _flat(model: Model) -> str:
    names = [t.name for t in model.main.tensors if t.quantized and t.scale < _FLAT and not t.constant]
    if not names:
        return ""
    return f" {len(names)} activations were constant in the calibration (first {names[0]!r}); train or calibrate anew."


def _runtime() -> Any:
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    return runtime


def _arena_bytes(model: Model) -> int:
    arena = simulate(model, targets.TARGETS["x86-64"], "reference")
    weights = sum(tensor.nbytes for graph in model.subgraphs for tensor in graph.tensors) if arena.unknown else 0
    return align(max(arena.phases.values()) + weights + _SLACK)


def _interpreter(raw: bytes, model: Model) -> Any:
    runtime = _runtime()
    with _Stderr() as captured:
        try:
            return runtime.Interpreter.from_bytes(raw, arena_size=_arena_bytes(model))
        except RuntimeError as error:
            raise ValueError(
                f"TensorFlow Lite Micro does not start this model ({error}). It said: {_said(captured.text())}"
            ) from error


def _said(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "File " not in line]
    return " / ".join(lines[:6]) or "nothing"


class _Stderr:
    """Catch what C++ writes to the standard error, which Python's sys.stderr does not see."""

    def __enter__(self) -> Self:
        self.file = tempfile.TemporaryFile()
        self.saved = os.dup(2)
        os.dup2(self.file.fileno(), 2)
        return self

    def __exit__(self, *exc: object) -> None:
        os.dup2(self.saved, 2)
        os.close(self.saved)
        self.file.close()

    def text(self) -> str:
        """Return what was written so far."""
        self.file.seek(0)
        return self.file.read().decode("utf-8", "replace")


def _match(inputs: list[Tensor], x: Any) -> list[Any]:
    """Return one array per model input."""
    names = [tensor.name for tensor in inputs]
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ValueError(
                f"x must have one array for each input of the model. Expected: {names}. Received: {list(x)}"
            )
        arrays = [x[name] for name in names]
    elif isinstance(x, (list, tuple)):
        arrays = list(x)
    else:
        arrays = [x]
    if len(arrays) != len(inputs):
        raise ValueError(
            f"x must have one array for each input of the model. Expected: {len(inputs)} ({names}). "
            f"Received: {len(arrays)}"
        )
    counts = {len(np.asarray(array)) if np.ndim(array) else 0 for array in arrays}
    if len(counts) > 1:
        raise ValueError(f"The arrays of x must have the same number of samples. Received: {sorted(counts)}")
    return arrays


def _quantize(tensor: Tensor, x: Any) -> np.ndarray:
    """Return the samples in the model's type, each with the model's shape."""
    array = np.asarray(x)
    sample = tensor.shape[1:] if tensor.shape and tensor.shape[0] == 1 else tensor.shape
    if array.ndim == 0 or array.shape[1:] not in (sample, tensor.shape):
        raise ValueError(
            f"Input {tensor.name!r} must hold samples of shape {sample}, an array of shape {('n', *sample)}. "
            f"Received: shape {array.shape}"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Input {tensor.name!r} must hold numbers. Received: dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"Input {tensor.name!r} must be finite. Received: {np.count_nonzero(~np.isfinite(array))} values that are "
            "NaN or infinite; clean the samples first"
        )
    array = array.reshape(len(array), *tensor.shape)
    dtype = np.dtype(tensor.type)
    if not tensor.quantized or dtype.kind == "f":
        return np.ascontiguousarray(array, dtype)
    limits = np.iinfo(dtype)
    scaled = array.astype(np.float32) / np.float32(tensor.scale)
    whole = np.trunc(scaled)
    away = np.abs(scaled - whole) >= 0.5
    rounded = whole + np.copysign(away, scaled) + np.float32(tensor.zero_point)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def _dequantize(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    shape = tensor.shape[1:] if tensor.shape and tensor.shape[0] == 1 else tensor.shape
    values = values.reshape(len(values), *shape)
    if not tensor.quantized or values.dtype.kind == "f":
        return values
    centred = values.astype(np.float32) - np.float32(tensor.zero_point)
    return np.asarray(centred * np.float32(tensor.scale), np.float32)


def _invoke(interpreter: Any, feeds: list[np.ndarray], outputs: list[Tensor], stateful: bool) -> list[np.ndarray]:
    """Run the samples; the loop calls the wheel's own functions and nothing else."""
    count = len(feeds[0]) if feeds else 1
    results = [np.empty((count, *tensor.shape), tensor.type) for tensor in outputs]
    set_input: Callable[[np.ndarray, int], None] = interpreter.set_input
    get_output, invoke = interpreter.get_output, interpreter.invoke
    sources, sinks = list(enumerate(feeds)), list(enumerate(results))
    for n in range(count):
        if stateful:
            interpreter.reset()
        for i, feed in sources:
            set_input(feed[n], i)
        invoke()
        for i, result in sinks:
            result[n] = get_output(i)
    return results
