"""What a trained model does and costs as an int8 file."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import tfmcu_prune
from tfmcu_prune import Budget, tflm
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.tflm import litert

CALIBRATION = 200  # training samples
SAMPLE = 200  # samples on which LiteRT must agree with TFLM
TFLM_WORK = 2_000_000_000  # MACs that TFLM is let run, about a minute


def measure(model: keras.Model, data: Dataset, budget: Budget) -> dict[str, Any]:
    """Convert a model, hold it to the budget, and return its accuracies and its footprint.

    Raises:
        BudgetError: The file is over the budget.
    """
    file = tfmcu_prune.convert(model, data.x_train[:CALIBRATION])
    cost = tfmcu_prune.footprint(file)
    cost.require(budget)
    accuracy, engine = int8_accuracy(file, cost.macs, data.x_test, data.y_test)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    parts = {
        part: float_accuracy(plain, getattr(data, f"x_{part}"), getattr(data, f"y_{part}")) for part in ("val", "test")
    }
    return {
        "int8": accuracy, "engine": engine, **parts,
        "arena": cost.arena, "flash": cost.flash, "macs": cost.macs, "widths": widths(model),
    }  # fmt: skip


def int8_accuracy(file: bytes, macs: int, x: Any, y: Any) -> tuple[float, str]:
    """Return the accuracy and what it was measured on: TFLM, or LiteRT where TFLM would take too long.

    LiteRT counts only if it names the same classes as TFLM on a sample; the two round a fully connected layer apart.
    """
    if macs * len(x) <= TFLM_WORK:
        return float(np.mean(tflm.run(file, x).argmax(-1) == y)), "tflm"
    exact, fast = tflm.run(file, x[:SAMPLE]), litert.run(file, x[:SAMPLE], reference=False)
    if not np.array_equal(exact.argmax(-1), fast.argmax(-1)):
        return float(np.mean(tflm.run(file, x).argmax(-1) == y)), "tflm"
    return float(np.mean(litert.run(file, x, reference=False).argmax(-1) == y)), "litert"


def widths(model: keras.Model) -> list[int]:
    """Return the output channels of each layer with a kernel, depthwise ones left out."""
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)
    return [int(layer.output.shape[-1]) for layer in model.layers if isinstance(layer, kinds)]


def float_accuracy(model: keras.Model, x: Any, y: Any) -> float:
    return float(np.mean(model.predict(x, batch_size=256, verbose=0).argmax(-1) == y))
