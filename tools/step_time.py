"""Time of a training step of gated models against the plain ones: ratio of medians, in one run.

The two are trained in turn, so that a drift of the machine's speed hits both alike. Behind them stands what an update
of the mask takes where `PruneCallback(calibration=...)` has samples to fit kernels on, in steps of the gated model; a
training has 25 of them.

    python tools/step_time.py --rounds 5
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from bench.timing import Repeated, step_seconds

import tfmcu_prune
from tfmcu_prune import zoo
from tfmcu_prune.files import replacing
from tfmcu_prune.reconstruction import reconstruct
from tfmcu_prune.tables import render

ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median counts.")
STEPS = flags.DEFINE_integer("steps", 20, "Training steps a round.")
BATCH = flags.DEFINE_integer("batch", 64, "Samples a step.")
JIT = flags.DEFINE_bool("jit", False, "Compile with XLA.")
CALIBRATION = flags.DEFINE_integer("calibration", 200, "Samples of an update.")
OUTPUT = flags.DEFINE_string("output", "build/step_time", "Folder of results.json.")

NETWORKS = (
    (zoo.vgg_small, (28, 28, 1), 10),
    (zoo.ds_cnn, (49, 10, 1), 12),
    (zoo.resnet8, (32, 32, 3), 10),
    (zoo.mobilenet_v1, (48, 48, 3), 2),
)


def seconds_of_update(gated: keras.Model, samples: np.ndarray) -> float:
    """Return what it takes to fit the kernels to a mask with every other channel gone."""
    mask = np.arange(len(tfmcu_prune.get_mask(gated))) % 2 > 0
    start = time.perf_counter()
    reconstruct(gated, [samples], np.ones_like(mask), mask)
    return time.perf_counter() - start


def _samples(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random((count, *shape)).astype("float32")


def measure(network: Any, shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    batches = Repeated(_samples(rng, BATCH.value, shape), rng.integers(0, classes, BATCH.value), STEPS.value)
    calibration = _samples(rng, CALIBRATION.value, shape)
    plain = network(shape, classes)
    models = {"plain": plain, "gated": tfmcu_prune.prunable(plain)}
    for model in models.values():
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=JIT.value)
        step_seconds(model, batches)  # traces and warms up
    times: dict[str, list[float]] = {name: [] for name in models}
    updates = []
    for _ in range(ROUNDS.value):
        for name, model in models.items():
            times[name].append(step_seconds(model, batches))
        updates.append(seconds_of_update(models["gated"], calibration) / times["gated"][-1])
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ratios = [gated / base for gated, base in zip(times["gated"], times["plain"], strict=True)]
    return {"network": network.__name__, **medians, "ratio": float(np.median(ratios)), "ratios": ratios,
            "update": float(np.median(updates)), "updates": updates}  # fmt: skip


def main(_: list[str]) -> None:
    results = [measure(*network) for network in NETWORKS]
    cells = [
        (r["network"], f"{1e3 * r['plain']:.1f}", f"{1e3 * r['gated']:.1f}", f"{r['ratio']:.3f}", f"{r['update']:.0f}")
        for r in results
    ]
    print(render(("network", "plain, ms a step", "gated, ms a step", "median of ratios", "an update, steps"), cells))
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    app.run(main)
