"""Time of a training step with batch normalization as Keras computes it and by the benchmark's one kernel.

`resnet11` at several sizes of its groups, in turn within each round, so that a drift of the machine's speed hits all
alike: its own ones, what a budget of 256 KB left of it, and the same in multiples of 16.

    python tools/normalization_time.py --policy mixed_bfloat16 --rounds 3
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from bench import networks
from bench.normalization import one_kernel
from bench.timing import Repeated, step_seconds

from tfmcu_prune.files import replacing
from tfmcu_prune.tables import render

POLICY = flags.DEFINE_string("policy", "mixed_bfloat16", "Dtype policy; in float32 both are Keras' own.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median counts.")
STEPS = flags.DEFINE_integer("steps", 40, "Training steps a round.")
BATCH = flags.DEFINE_integer("batch", 128, "Samples a step.")
OUTPUT = flags.DEFINE_string("output", "build/normalization_time", "Folder of results.json and table.md.")

SIZES = ((48, 64, 64, 96, 96, 128, 128), (48, 46, 48, 53, 55, 72, 55), (48, 48, 48, 48, 64, 64, 64))
KINDS = {"keras": contextlib.nullcontext, "one kernel": one_kernel}


def main(_: list[str]) -> None:
    keras.config.set_dtype_policy(POLICY.value)
    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH.value, 32, 32, 3)), np.eye(10)[rng.integers(0, 10, BATCH.value)]
    batches = Repeated(x.astype(np.float32), y.astype(np.float32), STEPS.value)

    def seconds(model: keras.Model, kind: str) -> float:
        with KINDS[kind]():
            return step_seconds(model, batches)

    models = {}
    for sizes in SIZES:
        for kind in KINDS:
            model = networks.resized(networks.resnet11((32, 32, 3), 10), sizes)
            model.compile("adam", "categorical_crossentropy", jit_compile=False)
            seconds(model, kind)  # traces and warms up
            models[sizes, kind] = model
    rounds = [{key: seconds(model, key[1]) for key, model in models.items()} for _ in range(ROUNDS.value)]
    results = [
        {"sizes": sizes, "policy": POLICY.value, **{kind: [r[sizes, kind] for r in rounds] for kind in KINDS}}
        for sizes in SIZES
    ]
    rows = [(str(list(r["sizes"])), *(f"{1e3 * np.median(r[kind]):.0f}" for kind in KINDS), f"{ratio(r):.2f}")
            for r in results]  # fmt: skip
    table = render(("group sizes", *(f"{kind}, ms a step" for kind in KINDS), "median of ratios"), rows)
    print(table)
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    with replacing(folder / "table.md") as path:
        path.write_text(f"```\n{table}\n```\n")


def ratio(result: dict[str, Any]) -> float:
    """Return the median over the rounds of what Keras takes for what the kernel takes."""
    return float(np.median(np.divide(result["keras"], result["one kernel"])))


if __name__ == "__main__":
    app.run(main)
