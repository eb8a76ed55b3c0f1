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
from typing import Any, NamedTuple

import numpy as np

from . import targets
from .arena import simulate
from .planner import align
from .samples import dequantized, matched, quantized
from .schema import Model, Tensor, load, read_model

_INSTALL = (
    "TensorFlow Lite Micro runs in the package tflite-micro, which is not installed (or not for this platform). "
    "Install it with: pip install --pre tflite-micro"
)
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
    results = [dequantized(tensor, values) for tensor, values in zip(outputs, raws, strict=True)]
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
    feeds = [quantized(tensor, sample) for tensor, sample in zip(inputs, matched(inputs, x), strict=True)]
    if any(tensor.flat for tensor in graph.tensors):
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
    names = [tensor.name for tensor in model.main.tensors if tensor.flat]
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

    def __enter__(self) -> _Stderr:
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
