"""Neural networks that fit microcontrollers: pruning to an arena, flash and MACs budget while a Keras model trains.

The public names are loaded on first use, so that what needs no TensorFlow never imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

from tfmcu_prune.registration import register_layers

__version__ = "0.1.0"

_WHERE = {
    "Budget": "budget",
    "BudgetError": "errors",
    "InvalidModel": "errors",
    "PruneCallback": "callback",
    "Resources": "budget",
    "UnsupportedLayer": "errors",
    "channel_groups": "channels",
    "compare": "comparison",
    "convert": "converter",
    "fit": "shrinking",
    "footprint": "tflm.footprint",
    "get_mask": "gating",
    "prunable": "gating",
    "quantize_aware": "qat",
    "register_rule": "rules",
    "report": "reporting",
    "set_mask": "gating",
    "shorten": "shortening",
    "strip": "surgery",
    "sweep": "sweeping",
}

__all__ = sorted([*_WHERE, "tflm"])

register_layers()


def __getattr__(name: str) -> Any:
    if name == "tflm":
        return importlib.import_module(f"{__name__}.tflm")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
