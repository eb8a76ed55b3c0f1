"""Compares ways of fitting a network to a microcontroller: the same data, recipe, epochs and exact budget for all.

Every run adds a line to the results file, and a run that is there already is not repeated; one that was stopped goes on
at its last epoch, from a folder beside that file (but for the peers' and those under a penalty, which begin anew). The
test split is looked at once a run, at its end; choices are made on `val`.

    python tools/benchmark.py --grid quick
    python tools/benchmark.py --grid small --piece 1/10 --data ../shared/data
    KERAS_BACKEND=jax python tools/benchmark.py --grid large --data ../shared/data
    python tools/benchmark.py --task speech --network ds_cnn --scenario B --level tight --epochs 12 --tune 4 \\
        --methods uniform,ours,ours:strength=0.1 --seeds 3
    python tools/benchmark.py --report --readme README.md
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
from absl import app, flags
from bench import grids, networks, results, tasks
from bench.jobs import Job
from bench.measure import measure
from bench.methods import parse
from bench.pareto import compared, pareto
from bench.training import JIT, spent

from tfmcu_prune import Budget
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.files import replacing
from tfmcu_prune.results import between

_GRID = flags.DEFINE_enum("grid", None, list(grids.GRIDS), "A set of runs; without it the flags below make one cell.")
_PIECE = flags.DEFINE_string("piece", "1/1", "Which piece of the grid, as k/n.")
_TASK = flags.DEFINE_enum("task", "fashion-mnist", list(tasks.TASKS), "Task of the one cell.")
_NETWORK = flags.DEFINE_enum("network", "vgg_small", list(networks.NETWORKS), "Network of the one cell.")
_SCENARIO = flags.DEFINE_enum("scenario", "A", ["A", "B"], "A: prune while training from scratch. B: a trained net.")
_LEVEL = flags.DEFINE_string("level", "tight", "Budget: loose, tight, extreme, or limits as arena=32KiB+flash=64KiB.")
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Epochs of the dense training.")
_TUNE = flags.DEFINE_integer("tune", 2, "Epochs of the compression, scenario B.")
_SAMPLES = flags.DEFINE_integer("samples", None, "Training samples at most.")
_METHODS = flags.DEFINE_list(
    "methods",
    None,
    "Methods, each with options as method:option=value+option=value; with any, rate=2 doubles the learning rate, "
    "smoothing=0, batch_size=64, mixup=0.5 and optimizer=muon set what they name of the recipe, and given=2 doubles "
    "the rate of the network that scenario B begins with, which is trained by the same optimizer.",
)
_SEEDS = flags.DEFINE_integer("seeds", None, "Number of seeds.")
_DATA = flags.DEFINE_string("data", "../shared/data", "Folder of the packed data sets.")
_RESULTS = flags.DEFINE_string("results", "tools/benchmark_results/results.jsonl", "The results file.")
_CACHE = flags.DEFINE_string("cache", "build/benchmark", "Folder of the trained dense networks of scenario B.")
_PEERS = flags.DEFINE_string(
    "peers", "build/peers", "The environment of bench/peers.txt, for the method torch_pruning."
)
_REPORT = flags.DEFINE_bool("report", False, "Only write the table and the picture beside the results file.")
_README = flags.DEFINE_string("readme", None, "A Markdown file whose tables of the benchmark to renew.")
_JIT = flags.DEFINE_enum("jit", "auto", list(JIT), "jit_compile of Keras.")
_POLICY = flags.DEFINE_string("policy", "float32", "Dtype policy: mixed_bfloat16 where the machine is fast at it.")


@dataclass(frozen=True)
class Settings:
    """What holds for all runs.

    Args:
        data: Folder of the packed data sets.
        cache: Folder of trained dense networks.
        jit: As `jit_compile` of Keras.
        peers: The environment that methods of other projects run in.
        policy: The dtype policy of all layers.
        unfinished: Folder of the trainings that were stopped; `None` to begin them anew.
    """

    data: Path
    cache: Path
    jit: bool | str = "auto"
    peers: Path = Path("build/peers")
    policy: str = "float32"
    unfinished: Path | None = None

    def backup(self, parts: Iterable[object]) -> Path | None:
        """Return the folder in which a training finds what it had."""
        return self.unfinished and self.unfinished / "-".join(map(str, parts))


@functools.cache
def _data(task: str, folder: Path, samples: int | None) -> Dataset:
    return tasks.load(task, folder, limit=samples)


def _network(cell: grids.Cell, data: Dataset) -> keras.Model:
    return networks.NETWORKS[cell.network](data.input_shape, data.classes)


@functools.cache
def _budget(cell: grids.Cell, shape: tuple[int, ...], classes: int) -> Budget:
    return networks.budget_at(networks.NETWORKS[cell.network](shape, classes), cell.level)


def execute(run: grids.Run, settings: Settings, data: Dataset) -> results.Result:
    """Train by one method and measure the outcome."""
    cell, key, (method, options) = run.cell, _key(run, data), parse(run.method)
    budget = Budget() if results.is_free(run.method) else _budget(cell, data.input_shape, data.classes)
    job = Job(functools.partial(_network, cell, data), data, tasks.TASKS[cell.task].recipe, budget, cell.epochs,
              run.seed, jit=settings.jit, peers=settings.peers, backup=settings.backup(results.key(key)))  # fmt: skip
    rate, given = (options.pop(name, 1.0) for name in ("rate", "given"))
    changes = {name: options.pop(name) for name in results.RECIPE if name in options}
    if cell.scenario == "B":
        optimizer = changes.get("optimizer", job.recipe.optimizer)
        before = replace(job, recipe=job.recipe.at_rate(given).changed(optimizer=optimizer))
        job = replace(job, trained=_trained(run, settings, before), before=cell.epochs, epochs=cell.tune)
    elif given != 1:
        raise ValueError(f"Only scenario B has a given network; expected no given= in A. Received: {run.method!r}")
    job = replace(job, recipe=job.recipe.at_rate(rate).changed(**changes))
    keras.utils.set_random_seed(run.seed)
    start = time.perf_counter() - spent(job.backup)
    model = method(job, **options)
    seconds = time.perf_counter() - start
    return {**key, "budget": budget.limits(), **measure(model, data, budget),
            "seconds": round(seconds, 1), "backend": keras.config.backend(), "commit": _commit()}  # fmt: skip


def _key(run: grids.Run, data: Dataset) -> results.Result:
    cell = run.cell
    level = "none" if results.is_free(run.method) else cell.level
    epochs = f"{cell.epochs}+{cell.tune}" if cell.scenario == "B" else str(cell.epochs)
    return {"task": cell.task, "network": cell.network, "scenario": cell.scenario, "level": level,
            "method": run.method, "seed": run.seed, "epochs": epochs, "samples": len(data.x_train),
            "policy": keras.config.dtype_policy().name}  # fmt: skip


@functools.cache
def _commit() -> str | None:
    """The commit that this script is of, "-dirty" behind it if files have changed; `None` outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _trained(run: grids.Run, settings: Settings, job: Job) -> keras.Model:
    """The dense network of this seed, trained: from the cache, or into it."""
    cell = run.cell
    recipe = hashlib.sha256(repr(job.recipe).encode()).hexdigest()[:8]  # a network of another recipe is another one
    parts = (cell.task, cell.network, cell.epochs, len(job.data.x_train), run.seed, keras.config.dtype_policy().name,
             keras.config.backend(), recipe)  # fmt: skip
    path = settings.cache / f"{'-'.join(map(str, parts))}.weights.h5"
    keras.utils.set_random_seed(run.seed)
    model = job.network()
    if not path.exists():
        replace(job, backup=settings.backup(parts)).train(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{path.name}")
        model.save_weights(partial)
        partial.replace(path)
    model.load_weights(path)
    return model


def go(todo: list[grids.Run], settings: Settings, path: Path) -> None:
    """Do the runs that the results file lacks."""
    done = {results.key(result) for result in results.read(path)}
    for run in todo:
        keras.backend.clear_session()
        keras.config.set_dtype_policy(settings.policy)  # which clear_session forgets
        data = _data(run.cell.task, settings.data, run.cell.samples)
        if results.key(_key(run, data)) in done:
            continue
        result = execute(run, settings, data)
        results.append(path, result)
        done.add(results.key(result))
        print(json.dumps(result), flush=True)


def report(path: Path) -> None:
    """Write table.md beside the results file, and pareto.png if there is something to compare."""
    found = results.read(path)
    with replacing(path.with_name("table.md")) as file:
        file.write_text(results.markdown(found))
    if compared(found):
        with replacing(path.with_name("pareto.png")) as file:
            pareto(found).savefig(file, format="png")


def chosen() -> list[grids.Run]:
    """The runs that the flags ask for."""
    if _GRID.value:
        cells, seeds = grids.GRIDS[_GRID.value]
    else:
        if _LEVEL.value not in networks.LEVELS:
            networks.limits(_LEVEL.value)  # one that cannot be read is an error before the first training
        tune = _TUNE.value if _SCENARIO.value == "B" else 0
        cells, seeds = [grids.Cell(_TASK.value, _NETWORK.value, _SCENARIO.value, _LEVEL.value, _EPOCHS.value, tune,
                                   _SAMPLES.value)], 3  # fmt: skip
    runs = list(grids.runs(cells, _SEEDS.value or seeds, _METHODS.value))
    number, _, count = _PIECE.value.partition("/")
    return grids.piece(runs, int(number), int(count))


def main(_: list[str]) -> None:
    path = Path(_RESULTS.value)
    if not _REPORT.value:
        settings = Settings(Path(_DATA.value), Path(_CACHE.value), JIT[_JIT.value], Path(_PEERS.value), _POLICY.value,
                            path.with_suffix(".unfinished"))  # fmt: skip
        go(chosen(), settings, path)
    report(path)
    if _README.value is not None:
        readme, found = Path(_README.value), results.read(path)
        text = between(readme.read_text(), "benchmark", results.summary(found))
        text = between(text, "benchmark parts", results.parts(found))
        text = between(text, "benchmark points", results.points(found))
        with replacing(readme) as file:
            file.write_text(text)


if __name__ == "__main__":
    app.run(main)
