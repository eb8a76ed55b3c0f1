"""The results file: one JSON line a run, and the table made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.networks import LEVELS
from tfmcu_prune.resources import RESOURCES
from tfmcu_prune.tables import markdown as table

CELL = ("task", "network", "scenario", "level", "epochs", "samples", "policy")
KEY = (*CELL, "method", "seed")
FREE = ("dense", "dense_extra")
"""Methods without a budget."""
RECIPE = ("smoothing", "batch_size", "optimizer", "mixup")
"""Options of any method that are parts of its recipe."""
TRAINING = ("rate", "given", *RECIPE)
"""Options of any method, how it is trained: factor of the learning rate, and of that of the network which scenario B
gives to it, and RECIPE."""
FASTER = ("cut",)
"""Options of `ours` for its speed: by `tfmcu_prune.fit`, in which what is out at the end of an epoch stays out."""


def _of_any_dropout(*methods: str, other: int = 0) -> tuple[str, ...]:
    """Some methods with options, each with its own rates of dropout and with the others."""
    return (*methods, *(f"{method}+dropout={other}" for method in methods))


COMPARED = {
    "dense": ("dense",),
    "ours": ("ours",),
    "ours, taught": ("ours:distill=0.5", "ours:distill=1"),
    "ours, fewer layers": ("ours:shorten=1", "ours:shorten=1+distill=0.5"),
    "thinner, from scratch": ("uniform", "uniform:dropout=1"),
    "thinner, fewer layers": _of_any_dropout(*(f"uniform:without={n}" for n in (1, 2, 5)), other=1),
    "thinner, as few epochs": ("uniform:total=0",),
    "L2 ranking": ("one_shot_l2", "cubic_l2", "one_shot_l2:dropout=1", "cubic_l2:dropout=1"),
    "Torch-Pruning": ("torch_pruning", "torch_pruning:scope=local"),
}
"""Columns of the summary: the best on `val` of these methods, in any way of TRAINING and FASTER."""
PARTS = {
    "ours": ("ours",),
    "full dropout": ("ours:dropout=0",),
    "the other schedule": _of_any_dropout("ours:begin=0+end=0.3", "ours:begin=0.1+end=0.5"),
    "no samples": _of_any_dropout(
        "ours:calibration=0", "ours:begin=0+end=0.2+calibration=0", "ours:begin=0.1+end=0.5+calibration=0"
    ),
    "learned sizes": _of_any_dropout("ours:learn=1+strength=0.1"),
    "random channels": ("random", "random:dropout=0"),
}
"""Columns of `parts`: ours, and ours but for one part of it."""
Result = dict[str, Any]
Cells = dict[tuple[Any, ...], dict[str, list[Result]]]


def read(path: Path) -> list[Result]:
    """Return the results so far; a line that a stopped run left half-written is an error that names it."""
    if not path.exists():
        return []
    results = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number} is not JSON ({error}). Remove the line; its run is repeated."
            ) from error
    return results


def append(path: Path, result: Result) -> None:
    """Add one run to the results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")


def key(result: Result) -> tuple[Any, ...]:
    """What tells one run from another."""
    return tuple(result[name] for name in KEY)


def cells(results: Iterable[Result]) -> Cells:
    """Group results: the values of CELL -> method -> runs of all seeds.

    The dense runs have no budget and stand in every cell of their task, network and training.
    """
    results, grouped = list(results), Cells()
    for result in results:
        if result["level"] != "none":
            cell = grouped.setdefault(tuple(result[name] for name in CELL), {})
            cell.setdefault(result["method"], []).append(result)
    for cell_key, cell in grouped.items():
        wanted = dict(zip(CELL, cell_key, strict=True)) | {"level": "none"}
        for result in results:
            if all(result[name] == value for name, value in wanted.items()):
                cell.setdefault(result["method"], []).append(result)
    return grouped


def training(cell: dict[str, Any]) -> str:
    """Return how the runs of a cell were trained, in words."""
    return f"{cell['epochs']} epochs of {cell['samples']:,} samples{_policy(cell)}"


def _policy(cell: dict[str, Any]) -> str:
    return "" if cell["policy"] == "float32" else f", {cell['policy']}"


def mean(runs: Sequence[Result], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def markdown(results: Iterable[Result]) -> str:
    """Return all results as Markdown, a table a cell, the best int8 accuracy first."""
    return "\n\n".join(_section(cell_key, cell) for cell_key, cell in cells(results).items()) + "\n"


def summary(results: Iterable[Result]) -> str:
    """Return the cells with ours, in any way, and `uniform` as one Markdown table: int8 accuracies with their spreads.

    Budgets with a name stand in the order of LEVELS, others before them.
    """
    return _summary(results, COMPARED)


def parts(results: Iterable[Result]) -> str:
    """Return what ours is without one part or another, as `summary` does; of the cells where that was run."""
    return _summary(results, PARTS)


def _summary(results: Iterable[Result], columns: Mapping[str, Sequence[str]]) -> str:
    """The summary in some columns, without rows in which nothing stands but in the first of them."""
    levels = {level: place for place, level in enumerate(LEVELS)}
    named = [(name, at_best_training(cell)) for name, cell in _named(results)]
    compared = [one for one in named if _is_compared(one[1])]
    order = sorted(compared, key=lambda one: (one[0]["scenario"], one[0]["task"], levels.get(one[0]["level"], -1)))
    rows = [(_told(*one), [_best(one[1], methods) for methods in columns.values()]) for one in order]
    header = ("task, network", "epochs", "arena, flash, MACs", *columns)
    return table(header, [[*told, *found] for told, found in rows if any(found[1:])])


def points(results: Iterable[Result]) -> str:
    """Return the cells with written limits that the summary lacks as one Markdown table.

    Of the variants of ours that with most runs stands there, of several the best on `val`.
    """
    rows = []
    for named, cell in _named(results):
        plain = at_best_training(cell)
        ours = {method: runs for method, runs in cell.items() if method.partition(":")[0] == "ours"}
        if named["level"] in LEVELS or _is_compared(plain) or not ours:
            continue
        best = max(ours, key=lambda method: (len(ours[method]), mean(ours[method], "val")))
        costs = _costs({name: mean(ours[best], name) for name in RESOURCES})
        row = [
            f"{named['task']}, {named['network']}",
            training(named),
            named["level"].replace("+", ", "),
            _best(plain, ("dense",)),
        ]
        rows.append([*row, accuracy(ours[best]), costs, f"`{best}`", str(len(ours[best]))])
    header = ("task, network", "training", "budget", "dense", "ours")
    return table((*header, "arena, flash, MACs of ours", "method", "runs"), rows)


def _named(results: Iterable[Result]) -> list[tuple[dict[str, Any], dict[str, list[Result]]]]:
    return [(dict(zip(CELL, key, strict=True)), cell) for key, cell in cells(results).items()]


def _is_compared(cell: dict[str, list[Result]]) -> bool:
    return "uniform" in cell and any(method.partition(":")[0] == "ours" for method in cell)


def _told(named: dict[str, Any], cell: dict[str, list[Result]]) -> list[str]:
    return [f"{named['task']}, {named['network']}", f"{named['scenario']}, {named['epochs']}{_policy(named)}",
            f"{named['level']}: " * (named["level"] in LEVELS) + _costs(cell["uniform"][0]["budget"])]  # fmt: skip


def _best(cell: dict[str, list[Result]], methods: Sequence[str]) -> str:
    """Return the accuracy of the best on `val` of some methods; "" if there is none of them."""
    found = [cell[method] for method in methods if method in cell]
    return accuracy(max(found, key=lambda runs: mean(runs, "val"))) if found else ""


def at_best_training(cell: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """Return a cell's runs of each method as trained best on `val`, by the method `without_training`.

    Those with most seeds are compared.
    """
    best: dict[str, list[Result]] = {}
    for method, runs in cell.items():
        plain = without_training(method)
        best[plain] = max(best.get(plain, runs), runs, key=lambda these: (len(these), mean(these, "val")))
    return best


def is_free(method: str) -> bool:
    """Whether a method has no budget; its level is "none"."""
    return without_training(method) in FREE


def without_training(method: str) -> str:
    """Return a method without the options of TRAINING and FASTER."""
    name, _, options = method.partition(":")
    dropped = (*TRAINING, *FASTER)
    others = "+".join(option for option in options.split("+") if option.partition("=")[0] not in dropped)
    return f"{name}:{others}" if others else name


def _costs(values: Mapping[str, float]) -> str:
    """Return what is limited, or used, of the resources, in words."""
    told = [f"{values[name] / 1024:.1f} KiB" for name in ("arena", "flash") if name in values]
    return ", ".join([*told, f"{values['macs'] / 1000:,.0f} k"] if "macs" in values else told)


def accuracy(runs: Sequence[Result], digits: int = 1) -> str:
    """Return the int8 accuracy in per cent, mean and, of several runs, standard deviation."""
    spread = f" ± {100 * np.std([run['int8'] for run in runs], ddof=1):.{digits}f}" if len(runs) > 1 else ""
    return f"{100 * mean(runs, 'int8'):.{digits}f}{spread}"


def _section(cell_key: tuple[Any, ...], cell: dict[str, list[Result]]) -> str:
    named = dict(zip(CELL, cell_key, strict=True))
    some = next(run for runs in cell.values() for run in runs if run["level"] != "none")
    limits = ", ".join(f"{name} {value:,}" for name, value in some["budget"].items())
    title = (
        f"### {named['task']}, {named['network']}, scenario {named['scenario']}, {named['level']}: {training(named)}"
    )
    header = "| method | int8, % | seeds | float, % | val, % | arena, B | flash, B | MACs | seconds | widths |"
    rule = "|---|---:|---|---:|---:|---:|---:|---:|---:|---|"
    order = sorted(cell, key=lambda method: -mean(cell[method], "int8"))
    return "\n".join([title, "", f"Budget: {limits}.", "", header, rule, *_rows(cell, order)])


def _rows(cell: dict[str, list[Result]], order: Sequence[str]) -> Iterator[str]:
    for method in order:
        runs = sorted(cell[method], key=lambda run: run["seed"])
        seeds = " ".join(f"{100 * run['int8']:.1f}" for run in runs)
        costs = " | ".join(f"{mean(runs, name):,.0f}" for name in ("arena", "flash", "macs", "seconds"))
        yield (
            f"| {method} | {accuracy(runs, 2)} | {seeds} | "
            f"{100 * mean(runs, 'test'):.2f} | {100 * mean(runs, 'val'):.2f} | {costs} | "
            f"{' '.join(map(str, runs[0]['widths']))} |"
        )
