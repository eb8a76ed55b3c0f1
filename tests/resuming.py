"""A training that is killed and taken up again, each life a process of its own; test_resume.py runs this file.

    python resuming.py FOLDER KIND KILLS EPOCHS SEED

writes FOLDER/whole.npz, of a training that nobody disturbs, and FOLDER/killed.npz, of one that has been killed. The
processes are forked behind the imports, which are most of their time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import keras
import nets
import numpy as np
import tensorflow as tf
from networks import inputs_for
from test_callback import budget_of
from tiny import always

import tfmcu_prune
from tfmcu_prune import shrinking

STEPS = 4


class Beats(keras.callbacks.Callback):
    """Tells the process that watches of every batch."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def on_train_batch_end(self, batch, logs=None) -> None:
        os.write(self.pipe, b".")


class Saves(keras.callbacks.Callback):
    """Saves the model after each epoch, the whole file or none."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.model.save(self.path.with_name("next.keras"))
        self.path.with_name("next.keras").replace(self.path)


class Dies(keras.callbacks.Callback):
    """Kills its own process behind a number of batches, so that Keras is not in the middle of writing a backup."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def fresh(kind: str) -> keras.Model:
    """A cut sums in another order, which Adam's first steps would blow up; elsewhere all bits must be the same."""
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(nets.residual(), budget_of(nets.residual()))
    rate = keras.optimizers.schedules.CosineDecay(0.02, 100)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9) if kind == "fit" else keras.optimizers.Adam(rate)
    gated.compile(optimizer, "mse", jit_compile=False)
    return gated


def train(folder: Path, kind: str, epochs: int, callbacks: list[keras.callbacks.Callback], name: str) -> None:
    """One life: from what an earlier one has left to the end, if it comes so far."""
    tf.config.experimental.enable_op_determinism()
    shrinking._Relay._pays = always  # type: ignore[method-assign]
    saved, begun = folder / f"{name}.keras", 0
    if kind == "saved" and saved.exists():
        gated = keras.models.load_model(saved)
        begun = int(gated.optimizer.iterations) // STEPS
    else:
        gated = fresh(kind)
    keep = [Saves(saved)] if kind == "saved" else [keras.callbacks.BackupAndRestore(folder / name)]
    x, y = inputs_for(gated, 16), np.eye(3)[np.arange(16) % 3]
    run = tfmcu_prune.fit if kind == "fit" else keras.Model.fit
    run(
        gated, x, y, batch_size=16 // STEPS, epochs=epochs, initial_epoch=begun, shuffle=False, verbose=0,
        callbacks=[tfmcu_prune.PruneCallback(strength=0.1, calibration=x), *keep, *callbacks],
    )  # fmt: skip
    small = tfmcu_prune.strip(gated)
    weights = small.weights if kind == "fit" else [*gated.weights, *gated.optimizer.variables]
    np.savez(folder / f"{name}.npz", tfmcu_prune.get_mask(gated), *map(keras.ops.convert_to_numpy, weights))


def live(folder: Path, kind: str, epochs: int, name: str, beats: int) -> bool:
    """Let one life begin, and kill it behind so many batches (0: never); return whether it came to its end."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            callbacks = [Dies(beats)] if kind != "saved" else [Beats(theirs)]
            train(folder, kind, epochs, callbacks, name)
            sys.stdout.flush()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    heard = 0
    while data := os.read(ours, 1):
        heard += len(data)
        if heard == beats:
            os.kill(child, signal.SIGKILL)
            break
    os.close(ours)
    status = os.waitpid(child, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"A life ended with the status {status}.")
    return status == 0


def main(folder: Path, kind: str, kills: int, epochs: int, seed: int) -> None:
    rng = random.Random(seed)
    assert live(folder, kind, epochs, "whole", 0)
    killed = sum(not live(folder, kind, epochs, "killed", rng.randint(1, 3 * STEPS)) for _ in range(kills))
    assert killed == kills, f"Only {killed} of {kills} lives were killed: too few epochs."
    assert live(folder, kind, epochs, "killed", 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
