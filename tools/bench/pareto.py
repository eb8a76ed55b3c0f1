"""Accuracy against each resource, all methods in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.results import CELL, Cells, Result, at_best_training, cells, is_free, mean, training, without_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which any colour vision tells apart: https://jfly.uni-koeln.de/color/
COLOURS = ("#d55e00", "#000000", "#0072b2", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#999999")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*", "h")
VARIANTS = ("ours:shorten=1", "uniform:dropout=1", "cubic_l2:dropout=1")
"""Of all methods with options those that the picture shows."""
RESOURCES = (("arena", "arena, KiB", 1024), ("flash", "flash, KiB", 1024), ("macs", "MACs, thousands", 1000))


def pareto(results: Sequence[Result]) -> Figure:
    """Draw int8 accuracy against arena, flash and MACs: a row a task, network and scenario, a mark a method and budget.

    Bars are the spread over seeds; a line joins a method's budgets. What `compared` leaves out is in the table.

    Raises:
        ValueError: No results to compare.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    found = compared(results)
    if not found:
        raise ValueError("Expected results of at least two methods at one budget. Received: none")
    rows = list(dict.fromkeys(_row(key) for key in found))
    names = dict.fromkeys(method for cell in found.values() for method in cell)
    methods = sorted(names, key=lambda method: method.partition(":")[0] != "ours")  # which has a colour of its own
    figure = Figure(figsize=(13, 4.2 * len(rows) + 0.8), layout="constrained", dpi=130)
    axes = figure.subplots(len(rows), 3, squeeze=False, sharey="row")
    for row, line in zip(rows, axes, strict=True):
        mine = [cell for key, cell in found.items() if _row(key) == row]
        for (name, label, unit), ax in zip(RESOURCES, line, strict=True):
            for index, method in enumerate(methods):
                _draw(ax, [cell[method] for cell in mine if method in cell], index, method, name, unit)
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel(label)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(color="#e6e6e6")
            ax.set_axisbelow(True)
        named = dict(row)
        line[0].set_ylabel("int8 accuracy, %")
        line[0].set_title(
            f"{named['task']}, {named['network']}, scenario {named['scenario']}, {training(named)}", loc="left"
        )
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def compared(results: Sequence[Result]) -> Cells:
    """The cells of the rows that show at least two methods with a budget, each as trained best, but few variants."""
    shown = cells(result for result in results if _is_shown(without_training(result["method"])))
    found = {key: at_best_training(cell) for key, cell in shown.items()}
    methods: dict[Any, set[str]] = {}
    for key, cell in found.items():
        methods.setdefault(_row(key), set()).update(m.partition(":")[0] for m in cell if not is_free(m))
    return {key: cell for key, cell in found.items() if len(methods[_row(key)]) > 1}


def _is_shown(method: str) -> bool:
    return ":" not in method or method in VARIANTS


def _row(cell_key: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    """What a row of pictures has in common: the cell without its budget."""
    return tuple((name, value) for name, value in zip(CELL, cell_key, strict=True) if name != "level")


def _draw(ax, points: Sequence[list[Result]], index: int, method: str, name: str, unit: int) -> None:  # type: ignore[no-untyped-def]
    points = sorted(points, key=lambda runs: mean(runs, name))
    x = [mean(runs, name) / unit for runs in points]
    y = [100 * mean(runs, "int8") for runs in points]
    low = [v - 100 * min(run["int8"] for run in runs) for v, runs in zip(y, points, strict=True)]
    high = [100 * max(run["int8"] for run in runs) - v for v, runs in zip(y, points, strict=True)]
    lap, colour = divmod(max(index - 1, 0), len(COLOURS) - 1)
    ax.errorbar(
        x, y, yerr=[low, high], label=method, color=COLOURS[colour + 1 if index else 0], capsize=2,
        marker=MARKERS[index % len(MARKERS)], markersize=6, linewidth=1, linestyle="--" if lap else "-",
    )  # fmt: skip
