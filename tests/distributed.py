"""Trainings on several devices, each in a process of its own; test_distribution.py runs this file.

    python distributed.py FILE KIND

KIND is one, mirrored, mirrored-fit, parallel, parallel-fit or worker; FILE takes the mask, the outputs and the weights.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import keras
import nets
import numpy as np
import tiny
from networks import inputs_for, outputs_of
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import shrinking


def _scope(kind: str) -> Any:
    """Where a model must be made so that it trains on two devices."""
    if kind.startswith("parallel"):
        keras.utils.set_random_seed(0)
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
        assert len(keras.distribution.list_devices()) == 2
    if kind == "worker":
        import tensorflow as tf

        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    if kind.startswith("mirrored"):
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        return strategy.scope()
    return contextlib.nullcontext()


def _replicas(value: Any) -> list[np.ndarray]:
    """What each device holds of a variable."""
    value = getattr(value, "value", value)
    parts = (
        getattr(value, "values", None) or [part.data for part in getattr(value, "addressable_shards", ())] or [value]
    )
    return [np.asarray(part) for part in parts]


def main(path: Path, kind: str) -> None:
    shrinking._Relay._pays = tiny.always  # type: ignore[method-assign]
    with _scope(kind):
        keras.utils.set_random_seed(0)
        gated = tfmcu_prune.prunable(nets.residual(), budget_of(nets.residual()))
        gated.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    x, y = inputs_for(gated, 32), np.eye(3)[np.arange(32) % 3]
    run = tfmcu_prune.fit if kind.endswith("fit") else keras.Model.fit
    callback = tfmcu_prune.PruneCallback() if kind == "mirrored" else tiny.pruning()
    history = tiny.fit(gated, x, y, run=run, callbacks=[callback])
    layer = gated.get_layer("channel_gates")
    masks = _replicas(layer.mask)
    assert len(masks) == (1 if kind == "one" or kind == "worker" else 2), masks
    assert all(np.array_equal(masks[0], mask) for mask in masks), masks
    small = tfmcu_prune.strip(gated)
    np.testing.assert_allclose(outputs_of(small, x), outputs_of(gated, x), rtol=1e-4, atol=1e-5)
    np.savez(path, tfmcu_prune.get_mask(gated), history.history["loss"], *small.get_weights())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
