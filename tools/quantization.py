"""What int8 costs, and what helps: one trained network, converted in every way, each file on the full test set.

Variants: `ptq` (convert with 500 samples), `ptq-100` and `ptq-10` (fewer samples), `statistics` (batch statistics
estimated anew on training samples before the conversion), `equalized` (channels of a map scaled to the same range
across layers), `bias` (biases without the mean error that rounded kernels make), `int16x8`, and `qat`
(quantization-aware training for some epochs at a tenth of the learning rate). TFLite's converter takes the least and
the greatest value of each tensor and has no public way to calibrate by percentile or MSE, so those are not here.
Accuracies of int8 files are those of TensorFlow Lite Micro, or of LiteRT where both agree on a sample. A run that was
stopped goes on where its results.jsonl ends.

    python tools/quantization.py --cases speech11:ds_cnn,fashion-mnist-14:vgg_small --epochs 8 --seeds 3
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from bench import tasks, training
from bench.int8_aids import bias_corrected, copy_of, equalized, estimated_anew
from bench.measure import float_accuracy, int8_accuracy
from bench.networks import NETWORKS

import tfmcu_prune
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.files import replacing
from tfmcu_prune.tables import render
from tfmcu_prune.tflm import runtime

CASES = flags.DEFINE_list("cases", ["speech11:ds_cnn", "fashion-mnist-14:vgg_small"], "TASK:NETWORK, ...")
EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of the float training.")
QAT_EPOCHS = flags.DEFINE_integer("qat_epochs", 2, "Epochs of the quantization-aware training.")
SAMPLES = flags.DEFINE_integer("samples", None, "Training samples; by default all.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Number of seeds.")
JIT = flags.DEFINE_enum("jit", "auto", list(training.JIT), "jit_compile of the float training.")
DATA = flags.DEFINE_string("data", "../shared/data", "Folder of the packed data sets.")
OUTPUT = flags.DEFINE_string("output", "build/quantization", "Folder of results.jsonl, table.md and the models.")


def quantization_aware(model: keras.Model, data: Dataset, recipe: tasks.Recipe, seed: int) -> bytes:
    aware = tfmcu_prune.quantize_aware(model, data.x_train[:500])
    aware.compile("adam", "categorical_crossentropy", jit_compile=False)
    aware.optimizer.learning_rate.assign(recipe.learning_rate / 10)
    batches = training.Batches(data, recipe, seed)
    for epoch in range(QAT_EPOCHS.value):
        batches.begin(epoch)
        for index in range(len(batches)):
            aware.train_on_batch(*batches[index])
    return tfmcu_prune.convert(aware)


def across_layers(model: keras.Model, data: Dataset, recipe: tasks.Recipe, seed: int) -> bytes | None:
    balanced = equalized(model, data)
    return None if balanced is None else tfmcu_prune.convert(balanced, data.x_train[:500])


Variant = Callable[[keras.Model, Dataset, tasks.Recipe, int], bytes | None]
VARIANTS: dict[str, Variant] = {
    "ptq": lambda model, data, *_: tfmcu_prune.convert(model, data.x_train[:500]),
    "ptq-100": lambda model, data, *_: tfmcu_prune.convert(model, data.x_train[:100]),
    "ptq-10": lambda model, data, *_: tfmcu_prune.convert(model, data.x_train[:10]),
    "statistics": lambda model, data, *_: tfmcu_prune.convert(estimated_anew(model, data), data.x_train[:500]),
    "equalized": across_layers,
    "bias": lambda model, data, *_: tfmcu_prune.convert(bias_corrected(model, data), data.x_train[:500]),
    "int16x8": lambda model, data, *_: tfmcu_prune.convert(model, data.x_train[:500], quantize="int16x8"),
    "qat": quantization_aware,
}


def trained(case: str, data: Dataset, recipe: tasks.Recipe, seed: int) -> keras.Model:
    """The float network, trained, or as an earlier run left it."""
    path = Path(OUTPUT.value, f"{case.replace(':', '-')}-{seed}.keras")
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = NETWORKS[case.split(":")[1]](data.x_train.shape[1:], data.classes)
    training.fit(model, data, recipe, epochs=EPOCHS.value, seed=seed, jit=training.JIT[JIT.value])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        model.save(temporary)
    return model


def run(case: str, seed: int, done: set[tuple[str, int, str]]) -> Iterator[dict[str, Any]]:
    task = case.split(":")[0]
    missing = [name for name in VARIANTS if (case, seed, name) not in done]
    if not missing:
        return
    data, recipe = tasks.load(task, Path(DATA.value), limit=SAMPLES.value), tasks.TASKS[task].recipe
    model = trained(case, data, recipe, seed)
    real = float_accuracy(copy_of(model), data.x_test, data.y_test)
    for name in missing:
        file = VARIANTS[name](model, data, recipe, seed)
        if file is None:  # there is nothing that it could do to this network
            continue
        cost = tfmcu_prune.footprint(file)
        if name == "int16x8":  # LiteRT's integer kernels are not compared with TFLM's
            found, engine = float(np.mean(runtime.run(file, data.x_test).argmax(-1) == data.y_test)), "tflm"
        else:
            found, engine = int8_accuracy(file, cost.macs, data.x_test, data.y_test)
        yield {
            "case": case, "seed": seed, "variant": name, "float": real, "integer": found, "engine": engine,
            "epochs": EPOCHS.value, "qat_epochs": QAT_EPOCHS.value, "samples": len(data.x_train),
            "tests": len(data.x_test), "arena": cost.arena, "flash": cost.flash,
        }  # fmt: skip


HEADER = ("case", "variant", "float, %", "integer, %", "loss, points", "losses", "arena, B", "flash, B")


def table(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Loss in points, mean and all seeds, by case and variant."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        cells.setdefault((result["case"], result["variant"]), []).append(result)
    rows = []
    for (case, variant), runs in cells.items():
        losses = [100 * (run["float"] - run["integer"]) for run in runs]
        accuracies = [f"{100 * np.mean([run[key] for run in runs]):.2f}" for key in ("float", "integer")]
        costs = [f"{runs[0][key]:,}" for key in ("arena", "flash")]
        each = " ".join(f"{loss:.2f}" for loss in losses)
        rows.append((case, variant, *accuracies, f"{np.mean(losses):.2f}", each, *costs))
    return rows


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    path = Path(OUTPUT.value, "results.jsonl")
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for case in CASES.value:
        for seed in range(SEEDS.value):
            done = {(result["case"], result["seed"], result["variant"]) for result in results}
            for result in run(case, seed, done):
                results.append(result)
                with path.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(case, seed, result["variant"], f"{result['float']:.4f} -> {result['integer']:.4f}", flush=True)
    print(render(HEADER, table(results)))
    lines = [HEADER, ("---",) * len(HEADER), *table(results)]
    with replacing(path.with_name("table.md")) as temporary:
        temporary.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    app.run(main)
