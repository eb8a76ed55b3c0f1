"""What the tests of sweeps train: at the top level of a file, so that other processes can import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import keras
import numpy as np

from tfmcu_prune import Budget

SMALL, LARGE, NONE = Budget(macs=1200), Budget(macs=2000), Budget(macs=10)


def build_model():
    layers = [
        keras.Input((6, 6, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    return model


def data():
    x = np.random.default_rng(0).normal(size=(96, 6, 6, 1)).astype("float32")
    y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    return (x[:64], y[:64]), (x[64:80], y[64:80]), (x[80:], y[80:])


def seed():
    """The seed of the run, as `keras.utils.set_random_seed` left it in NumPy."""
    return int(np.random.get_state()[1][0])  # noqa: NPY002


def fit(gated, x, y, **settings):
    """Train; seed 1 raises an error, seed 2 kills its process, seed 3 waits for ever once it has told who it is."""
    if seed() == 1:
        raise ArithmeticError("seed 1 is out of luck")
    if seed() == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed() == 3:
        told = Path(os.environ["SWEEPS_WAITS"])
        told.with_suffix(".new").write_text(str(os.getpid()))
        told.with_suffix(".new").rename(told)
        time.sleep(600)
    gated.fit(x, y, **settings)
