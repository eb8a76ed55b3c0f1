"""Conversion in a process whose Keras runs on TensorFlow, for models of another backend."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array

_LOCK = threading.Lock()


def convert_elsewhere(model: keras.Model, samples: list[Array], options: dict[str, Any]) -> bytes:
    """Run `convert(model, samples, **options)` in the process that converts, and start it if there is none.

    Importing TensorFlow takes seconds, so the process stays for a minute and takes what else is to be converted: a
    freeze of the mask converts several times.

    Args:
        model: A plain Keras model.
        samples: Calibration, an array an input.
        options: Further arguments of `convert`, as JSON can hold them.

    Raises:
        UnsupportedLayer: As `convert` raised it there.
        RuntimeError: The process failed in another way.
    """
    with tempfile.TemporaryDirectory() as name, _LOCK:
        folder = Path(name)
        model.save(folder / "model.keras")
        np.savez(folder / "samples.npz", *samples)
        (folder / "options.json").write_text(json.dumps(options))
        worker = _worker(os.getpid())
        if not worker.do(folder):  # it had ended: idle for too long, or killed
            worker.end()
            _worker.cache_clear()
            worker = _worker(os.getpid())
            if not worker.do(folder):
                raise RuntimeError(f"The process that converts has ended:\n{worker.said()}")
        if (folder / "refused.txt").exists():
            raise UnsupportedLayer((folder / "refused.txt").read_text())
        if (folder / "failed.txt").exists():
            raise RuntimeError(f"The conversion in a process of its own failed:\n{(folder / 'failed.txt').read_text()}")
        return (folder / "model.tflite").read_bytes()


@functools.cache
def _worker(pid: int) -> _Worker:
    """The process that converts for this one; one that was forked does not share it."""
    worker = _Worker()
    atexit.register(worker.end)
    return worker


class _Worker:
    """A process that converts what stands in the folders that it is told, and ends when it has long had no work."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CONVERTS],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def do(self, folder: Path) -> bool:
        """Convert what stands in a folder; return whether the process is still there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{folder}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return any(reply == f"{folder}\n" for reply in self._process.stdout)  # not of a call that was interrupted

    def said(self) -> str:
        """The end of what the process has written to its standard error."""
        self._log.seek(0)
        return self._log.read()[-4000:]

    def end(self) -> None:
        """Close the standard input of the process, which ends it."""
        self._process.communicate()
        self._log.close()


_CONVERTS = """
import json, os, pathlib, sys, threading, traceback
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what TensorFlow prints is no reply
import keras, numpy
import tfmcu_prune
while True:
    idle = threading.Timer(60, os._exit, [0])
    idle.start()
    line = sys.stdin.readline()
    idle.cancel()
    if not line:
        break
    folder = pathlib.Path(line[:-1])
    try:
        model = keras.models.load_model(folder / "model.keras")
        with numpy.load(folder / "samples.npz") as samples:
            arrays = [samples[name] for name in samples.files]
        options = json.loads((folder / "options.json").read_text())
        data = tfmcu_prune.convert(model, arrays if len(arrays) != 1 else arrays[0], **options)
        (folder / "model.tflite").write_bytes(data)
    except tfmcu_prune.UnsupportedLayer as error:
        (folder / "refused.txt").write_text(str(error))
    except Exception:
        (folder / "failed.txt").write_text(traceback.format_exc())
    replies.write(line)
    replies.flush()
    model = None
    keras.backend.clear_session()
"""
