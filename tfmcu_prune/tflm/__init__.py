"""The TFLite half: everything about a .tflite file on TensorFlow Lite Micro, without TensorFlow or Keras."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "run": "runtime",
    "measure": "runtime",
    "reorder": "order",
    "plan": "offline",
    "optimize": "improve",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value
