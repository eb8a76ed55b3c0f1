"""The time of a training step, on one batch over and over: no augmentation, no tuning of tf.data."""

from __future__ import annotations

import time
from typing import Any

import keras

from bench.training import without_autotune


class Repeated(keras.utils.PyDataset):
    """One batch, `steps` times.

    Args:
        x: Samples.
        y: Their labels.
        steps: How often they come.
    """

    def __init__(self, x: Any, y: Any, steps: int) -> None:
        super().__init__()
        self._batch, self._steps = (x, y), steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._batch


def step_seconds(model: keras.Model, batches: Repeated) -> float:
    """Train a compiled model for an epoch; return the seconds of a step, from the end of the first to the last's."""
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: ends.append(time.perf_counter()))
    model.fit(without_autotune(batches), verbose=0, shuffle=False, callbacks=[clock])
    return (ends[-1] - ends[0]) / (len(ends) - 1)
