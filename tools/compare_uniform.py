"""Pruned while training against a uniformly thinner net from scratch: same data, epochs, optimizer and budget.

Fashion-MNIST, the small VGG of tfmcu_prune.zoo. The budget is 60 % of the dense net's arena, 25 % of its MACs, and the
flash of the uniform net with --widths; the uniform net trained is the widest one whose .tflite fits all three. Accuracy
of the int8 file on TFLM over the whole test split, and of the float model; validation samples are training samples not
trained on. A run that was stopped goes on where its results.json ends; remove the folder for other settings.

    python tools/compare_uniform.py --seeds 3
    python tools/compare_uniform.py --variants pruned,pruned:strength=0.1 --seeds 3
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags

import tfmcu_prune
from tfmcu_prune import Budget, PruneCallback, datasets, tflm, zoo
from tfmcu_prune.files import replacing
from tfmcu_prune.fitting import converted_cost
from tfmcu_prune.resources import over
from tfmcu_prune.tables import render

SEEDS = flags.DEFINE_integer("seeds", 3, "Number of seeds.")
EPOCHS = flags.DEFINE_integer("epochs", 6, "Epochs of every training.")
SAMPLES = flags.DEFINE_integer("samples", 20_000, "Training samples.")
VARIANTS = flags.DEFINE_list(
    "variants", ["dense", "uniform", "pruned"], "dense, uniform, pruned, or pruned:ARG=VALUE of PruneCallback."
)
UNIFORM = flags.DEFINE_list("widths", ["4", "4", "9", "9", "19"], "Widths whose .tflite sets the flash budget.")
OUTPUT = flags.DEFINE_string("output", "build/compare_uniform", "Folder of results.json and table.md.")
BATCH = 128
WIDTHS = (16, 16, 32, 32, 64)


def network(widths: Sequence[int] = WIDTHS) -> keras.Model:
    return zoo.vgg_small((28, 28, 1), 10, widths=tuple(widths))


def widest(budget: Budget) -> keras.Model:
    """The widest uniformly thinner net that fits, by converting one after the other."""
    for share in np.arange(0.6, 0.05, -0.005):
        widths = [max(1, round(share * width)) for width in WIDTHS]
        if not over(converted_cost(network(widths)), budget):
            return network(widths)
    raise ValueError(f"No uniform net fits {budget}.")


def train(model: keras.Model, data: datasets.Dataset, callbacks: Sequence[keras.callbacks.Callback]) -> float:
    steps = EPOCHS.value * -(-len(data.x_train) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS.value, verbose=0, callbacks=list(callbacks))
    return time.perf_counter() - start


def run(variant: str, seed: int, data: datasets.Dataset, budget: Budget, uniform: Sequence[int]) -> dict[str, Any]:
    keras.utils.set_random_seed(seed)
    name, _, options = variant.partition(":")
    if name == "pruned":
        arguments = {key: float(value) for key, value in (o.split("=") for o in options.split("+") if o)}
        model = tfmcu_prune.prunable(network(), budget)
        seconds = train(model, data, [PruneCallback(**arguments)])
        model = tfmcu_prune.strip(model)
    else:
        model = network(uniform if name == "uniform" else WIDTHS)
        seconds = train(model, data, [])
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    file = tfmcu_prune.convert(model, data.x_train[:200])
    fp = tfmcu_prune.footprint(file)
    if name != "dense":
        fp.require(budget)
    int8 = float((tflm.run(file, data.x_test).argmax(-1) == data.y_test).mean())
    widths = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return {
        "variant": variant, "seed": seed, "int8": int8,
        "test": model.evaluate(data.x_test, data.y_test, verbose=0)[1],
        "val": model.evaluate(data.x_val, data.y_val, verbose=0)[1],
        "arena": fp.arena, "flash": fp.flash, "macs": fp.macs, "widths": widths, "seconds": seconds,
    }  # fmt: skip


def rows(results: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for variant in dict.fromkeys(result["variant"] for result in results):
        mine = [result for result in results if result["variant"] == variant]
        mean = {key: np.mean([r[key] for r in mine]) for key in ("int8", "test", "val", "arena", "flash", "macs")}
        scores = " ".join(f"{100 * r['int8']:.1f}" for r in mine)
        yield (
            variant, f"{100 * mean['int8']:.1f}", scores, f"{100 * mean['test']:.1f}", f"{100 * mean['val']:.1f}",
            int(mean["arena"]), int(mean["flash"]), int(mean["macs"]), f"{np.median([r['seconds'] for r in mine]):.0f}",
            mine[0]["widths"],
        )  # fmt: skip


def main(_: list[str]) -> None:
    data = datasets.load("fashion-mnist", limit=round(SAMPLES.value / 0.9), seed=0)
    dense = converted_cost(network())
    flash = converted_cost(network([int(width) for width in UNIFORM.value])).flash
    budget = Budget(arena=round(0.6 * dense.arena), flash=flash, macs=round(0.25 * dense.macs))
    thin = widest(budget)
    uniform = [layer.filters for layer in thin.layers if isinstance(layer, keras.layers.Conv2D)]
    print(f"{data}\ndense: arena {dense.arena}, flash {dense.flash}, macs {dense.macs}\n{budget}, uniform {uniform}")
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "results.json"
    results: list[dict[str, Any]] = json.loads(saved.read_text()) if saved.exists() else []
    done = {(result["variant"], result["seed"]) for result in results}
    for seed in range(SEEDS.value):
        for variant in VARIANTS.value:
            if (variant, seed) in done:
                continue
            results.append(run(variant, seed, data, budget, uniform))
            print(json.dumps(results[-1]), flush=True)
            with replacing(saved) as path:
                path.write_text(json.dumps(results, indent=1))
    header = ("variant", "int8", "seeds", "float", "val", "arena", "flash", "macs", "seconds", "widths")
    table = render(header, rows(results), width=140)
    print(table)
    with replacing(folder / "table.md") as path:
        path.write_text(f"```\n{table}\n```\n")


if __name__ == "__main__":
    app.run(main)
