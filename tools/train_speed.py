"""Wall time of a pruned training against that of the dense network: the same data, batches and epochs.

Three fits a round, each in a process of its own, in turn: `dense` (model.fit), `masked` (model.fit of the gated model)
and `shrinking` (tfmcu_prune.fit). The budget is a tenth of the dense MACs. Time is that of `fit` as a whole, tracing
included; `steady` leaves the first epoch out; memory is the peak of the process.

    python tools/train_speed.py --networks resnet8,mobilenet_v2,vgg_small --epochs 10 --samples 10000 --rounds 3

CIFAR-10 comes from --data (a folder with cifar10.npz) or keras.datasets. Goes on where results.jsonl ends.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

from tfmcu_prune.files import replacing
from tfmcu_prune.tables import render

NETWORKS = flags.DEFINE_list("networks", ["resnet8", "mobilenet_v2", "vgg_small"], "Names of the zoo, or vgg7.")
EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of each fit.")
SAMPLES = flags.DEFINE_integer("samples", 10_000, "Training samples.")
BATCH = flags.DEFINE_integer("batch", 128, "Samples a step.")
KINDS = flags.DEFINE_list("kinds", ["dense", "masked", "shrinking"], "Kinds of fit.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; medians count.")
SHARE = flags.DEFINE_float("share", 0.1, "MACs of the pruned network, as a part of the dense one's.")
JIT = flags.DEFINE_enum("jit", "auto", ["auto", "true", "false"], "jit_compile; auto is what Keras does by itself.")
DATA = flags.DEFINE_string("data", "../shared/data", "Folder of cifar10.npz.")
OUTPUT = flags.DEFINE_string("output", "build/train_speed", "Folder of results.jsonl and table.md.")
ONE = flags.DEFINE_string("one", "", "NETWORK:KIND:SEED of one fit, printed as JSON; used by this script itself.")
FEED = "untuned"  # results of "arrays" are from before `without_autotune`: their epochs could end late
SETTING = ("network", "epochs", "samples", "backend", "jit", "feed")


def run_one(network: str, kind: str, seed: int) -> dict[str, Any]:
    import keras
    from bench import networks, training
    from bench.tasks import Recipe, load

    import tfmcu_prune
    from tfmcu_prune.fitting import converted_cost

    data = load("cifar10", Path(DATA.value), limit=SAMPLES.value)
    keras.utils.set_random_seed(seed)
    model = networks.NETWORKS[network]((32, 32, 3), 10)
    if kind != "dense":
        dense = converted_cost(keras.models.clone_model(model))
        model = tfmcu_prune.prunable(model, tfmcu_prune.Budget(macs=round(SHARE.value * dense.macs)))
    batches = training.Batches(data, Recipe(batch_size=BATCH.value, smoothing=0.0), seed)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS.value * len(batches))
    model.compile(
        keras.optimizers.Adam(schedule),
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=training.JIT[JIT.value],
    )
    clock = _Clock()
    run = tfmcu_prune.fit if kind == "shrinking" else keras.Model.fit
    callbacks = [clock] if kind == "dense" else [tfmcu_prune.PruneCallback(), clock]
    start = time.perf_counter()
    training.feed(run, model, batches, epochs=EPOCHS.value, callbacks=callbacks)
    seconds = time.perf_counter() - start
    right = model.predict(data.x_test, batch_size=500, verbose=0).argmax(-1) == data.y_test
    return {
        "network": network, "kind": kind, "seed": seed, "epochs": EPOCHS.value, "samples": SAMPLES.value,
        "backend": keras.backend.backend(), "jit": JIT.value, "feed": FEED, "seconds": seconds,
        "steady": seconds - clock.first, "mib": _peak(), "accuracy": float(right.mean()),
        "seconds_an_epoch": clock.epochs,
    }  # fmt: skip


def _Clock() -> Any:  # noqa: N802
    import keras

    class Clock(keras.callbacks.Callback):
        """Seconds to the end of each epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[float] = []
            self.last = time.perf_counter()

        def on_train_begin(self, logs: Any = None) -> None:
            self.last = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            self.epochs.append(now - self.last)
            self.last = now

        @property
        def first(self) -> float:
            return self.epochs[0]

    return Clock()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(results: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    settings = dict.fromkeys(tuple(r[key] for key in SETTING) for r in results)
    for setting in settings:
        mine = [r for r in results if tuple(r[key] for key in SETTING) == setting]
        for kind in dict.fromkeys(r["kind"] for r in mine):
            runs = {r["seed"]: r for r in mine if r["kind"] == kind}
            dense = {r["seed"]: r for r in mine if r["kind"] == "dense"}
            both = [seed for seed in runs if seed in dense]
            if not both:
                continue
            total, steady = (
                statistics.median(runs[s][key] / dense[s][key] for s in both) for key in ("seconds", "steady")
            )
            accuracy = " ".join(f"{100 * run['accuracy']:.1f}" for run in runs.values())
            yield (
                *map(str, setting), kind, f"{statistics.median(r['seconds'] for r in runs.values()):.0f}",
                f"{total:.2f}", f"{steady:.2f}",
                f"{statistics.median(r['mib'] for r in runs.values()):.0f}", accuracy,
            )  # fmt: skip


def main(argv: list[str]) -> None:
    if ONE.value:
        network, kind, seed = ONE.value.split(":")
        print(json.dumps(run_one(network, kind, int(seed))))
        return
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "results.jsonl"
    results = [json.loads(line) for line in saved.read_text().splitlines()] if saved.exists() else []
    setting = (EPOCHS.value, SAMPLES.value, os.environ.get("KERAS_BACKEND", "tensorflow"), JIT.value, FEED)
    done = {(r["network"], r["kind"], r["seed"], *(r[key] for key in SETTING[1:])) for r in results}
    for seed in range(ROUNDS.value):
        for network in NETWORKS.value:
            for kind in KINDS.value:
                if (network, kind, seed, *setting) in done:
                    continue
                command = [sys.executable, *argv[:1], *sys.argv[1:], f"--one={network}:{kind}:{seed}"]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(run.stdout.splitlines()[-1]))
                print(json.dumps(results[-1]), flush=True)
                with saved.open("a") as lines:
                    lines.write(json.dumps(results[-1]) + "\n")
    header = (*SETTING, "fit", "seconds", "ratio", "steady", "MiB", "test accuracy, %")
    table = render(header, rows(results), width=140)
    print(table)
    with replacing(folder / "table.md") as path:
        path.write_text(f"```\n{table}\n```\n")


if __name__ == "__main__":
    app.run(main)
