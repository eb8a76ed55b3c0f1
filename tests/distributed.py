"""Trainings on several devices, each in a process of its own; test_distribution.py runs this file.

    python distributed.py FILE KIND

KIND is one, mirrored or parallel; FILE takes masks, losses and weights of `gated.fit` and of `tfmcu_prune.fit`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tiny
from networks import outputs_of
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import shrinking
from tfmcu_prune.fitting import measured
from tfmcu_prune.resources import over


@functools.cache
def _mirrored() -> Any:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def scope_of(kind: str) -> Any:
    """Where a model must be made so that it trains on two devices."""
    if kind == "parallel":
        keras.utils.set_random_seed(0)
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    if kind in ("one", "parallel"):
        return contextlib.nullcontext()
    assert _mirrored().num_replicas_in_sync == 2
    return _mirrored().scope()


def _replicas(value: Any) -> list[np.ndarray]:
    """What each device holds of a variable."""
    value = getattr(value, "value", value)
    parts = (
        getattr(value, "values", None) or [part.data for part in getattr(value, "addressable_shards", ())] or [value]
    )
    return [np.asarray(part) for part in parts]


def train(kind: str, run: Any) -> list[np.ndarray]:
    with scope_of(kind):
        gated = tiny.gated(keras.optimizers.SGD(0.1, momentum=0.9))
    measure = tiny.form if keras.backend.backend() == "jax" else measured  # under JAX, a process of its own
    callback = tiny.pruning(measure=measure, calibration=tiny.data()[0])
    history = tiny.fit(gated, run=run, callbacks=[callback])
    masks = _replicas(gated.get_layer("channel_gates").mask)
    assert len(masks) == (1 if kind == "one" else 2), masks
    assert all(np.array_equal(masks[0], mask) for mask in masks), masks
    small, x = tfmcu_prune.strip(gated), tiny.data()[0]
    np.testing.assert_allclose(outputs_of(small, x), outputs_of(gated, x), rtol=1e-4, atol=1e-5)
    assert not over(measure(gated), budget_of(tiny.network()))
    return [tfmcu_prune.get_mask(gated), np.array(history.history["loss"]), *small.get_weights()]


def main(path: Path, kind: str) -> None:
    shrinking._Relay._pays = tiny.always  # type: ignore[method-assign]
    np.savez(path, *train(kind, keras.Model.fit), *train(kind, tfmcu_prune.fit))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
