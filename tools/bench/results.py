"""The results file: one JSON line a run, and the table made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CELL = ("task", "network", "scenario", "level", "epochs", "samples", "policy")
KEY = (*CELL, "method", "seed")
FREE = ("dense", "dense_extra")
"""Methods without a budget; their level is "none"."""
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
    policy = "" if cell["policy"] == "float32" else f", {cell['policy']}"
    return f"{cell['epochs']} epochs of {cell['samples']:,} samples{policy}"


def mean(runs: Sequence[Result], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def markdown(results: Iterable[Result]) -> str:
    """Return all results as Markdown, a table a cell, the best int8 accuracy first."""
    return "\n\n".join(_section(cell_key, cell) for cell_key, cell in cells(results).items()) + "\n"


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
        spread = f" ± {100 * np.std([run['int8'] for run in runs], ddof=1):.2f}" if len(runs) > 1 else ""
        seeds = " ".join(f"{100 * run['int8']:.1f}" for run in runs)
        costs = " | ".join(f"{mean(runs, name):,.0f}" for name in ("arena", "flash", "macs", "seconds"))
        yield (
            f"| {method} | {100 * mean(runs, 'int8'):.2f}{spread} | {seeds} | "
            f"{100 * mean(runs, 'test'):.2f} | {100 * mean(runs, 'val'):.2f} | {costs} | "
            f"{' '.join(map(str, runs[0]['widths']))} |"
        )
