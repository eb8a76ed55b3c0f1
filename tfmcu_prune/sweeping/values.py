"""The values of a sweep: what is to be run, what one run came to, and all of them as a table and a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfmcu_prune.budget import Budget
from tfmcu_prune.tables import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mode = Literal["max", "min"]

_RESOURCES = ("arena", "flash", "macs")
_UNITS = {"arena": ("arena, KiB", 1024), "flash": ("flash, KiB", 1024), "macs": ("MACs, thousands", 1000)}
# Two of Okabe and Ito's colours, which any colour vision tells apart: https://jfly.uni-koeln.de/color/
_FRONT, _OTHER = "#0072b2", "#c8c8c8"


@dataclass(frozen=True)
class Task:
    """One training of a sweep."""

    budget: Budget
    seed: int

    @property
    def name(self) -> str:
        """What its model and its line are called, such as "arena8192-macs250000-seed0"."""
        limits = [f"{name}{value}" for name, value in self.budget.limits().items()]
        return "-".join([*(limits or ["unlimited"]), f"seed{self.seed}"])


@dataclass(frozen=True)
class Run:
    """What one training came to.

    Args:
        name: Of the run, and of its model without ".tflite".
        budget: What the model was to fit.
        seed: Of weights and batches.
        val: Score of the int8 file on TensorFlow Lite Micro, validation samples.
        test: The same, test samples.
        val_float: Score of the stripped Keras model, validation samples.
        test_float: The same, test samples.
        arena: Tensor arena of the file, bytes.
        flash: The file, bytes.
        macs: Multiply-accumulates of one inference.
        params: Weights of the Keras model.
        seconds: Time of the training, without conversion and evaluation.
        model: Path of the .tflite.
    """

    name: str
    budget: Budget
    seed: int
    val: float
    test: float
    val_float: float
    test_float: float
    arena: int
    flash: int
    macs: int
    params: int
    seconds: float
    model: Path


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error; it is tried again by the next call."""

    name: str
    budget: Budget
    seed: int
    error: str


@dataclass(frozen=True)
class Sweep:
    """The outcome of `sweep`; print it for a table.

    Args:
        metric: Name of the score.
        mode: Whether a good score is a high or a low one.
        runs: The runs that went well, in the order of budgets and seeds.
        failures: The others.
    """

    metric: str
    mode: Mode
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]

    def front(self, *resources: str) -> tuple[Run, ...]:
        """Return the runs that no other run beats in validation score and resources at once: the Pareto front.

        Args:
            *resources: Of "arena", "flash" and "macs"; default: all three.

        Raises:
            ValueError: An unknown resource.
        """
        unknown = set(resources) - set(_RESOURCES)
        if unknown:
            raise ValueError(f"Expected resources of {_RESOURCES}. Received: {', '.join(sorted(unknown))}")
        prices = {run.name: self._prices(run, resources or _RESOURCES) for run in self.runs}
        beaten = {
            name
            for name, own in prices.items()
            for other in prices.values()
            if other != own and all(a <= b for a, b in zip(other, own, strict=True))
        }
        return tuple(run for run in self.runs if run.name not in beaten)

    def plot(self) -> Figure:
        """Draw the test score against arena, flash and MACs; what is on the front of the panel is joined by a line.

        Returns:
            A matplotlib figure that belongs to no window; save it with `figure.savefig(path)`.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: No run went well.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Pictures need the package 'matplotlib': pip install 'tfmcu-prune[report]'", name="matplotlib"
            ) from error
        if not self.runs:
            raise ValueError(f"Expected runs to draw. Received none, and {len(self.failures)} that failed:\n{self}")
        figure = Figure(figsize=(12, 4), layout="constrained", dpi=130)
        panels = figure.subplots(1, len(_RESOURCES), sharey=True)
        for ax, name in zip(panels, _RESOURCES, strict=True):
            self._draw(ax, name)
        panels[0].set_ylabel(f"{self.metric}, int8 on TFLM, test samples")
        panels[0].legend(frameon=False)
        return figure

    def _prices(self, run: Run, resources: Sequence[str]) -> tuple[float, ...]:
        """What a run asks for: the lower, the better, in each place."""
        sign = -1 if self.mode == "max" else 1
        return (sign * run.val, *(getattr(run, name) for name in resources))

    def _draw(self, ax: Axes, resource: str) -> None:
        import numpy as np

        title, unit = _UNITS[resource]
        front = sorted(self.front(resource), key=lambda run: getattr(run, resource))
        places = [getattr(run, resource) / unit for run in self.runs]
        ax.plot(places, [run.test for run in self.runs], "o", color=_OTHER, label="all runs")
        joined = [getattr(run, resource) / unit for run in front], [run.test for run in front]
        ax.plot(*joined, "o-", color=_FRONT, label="front by the validation samples")
        ax.set_xlabel(title)
        ax.set_xscale("log")
        ax.minorticks_off()
        ticks = np.geomspace(min(places), max(places), 4)
        ax.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 100 else f"{tick:.1f}" for tick in ticks])
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
        ax.grid(color="#e6e6e6")

    def __str__(self) -> str:
        front = {run.name for run in self.front()}
        header = ("run", "front", "val", "test", "test, float", *(title for title, _ in _UNITS.values()), "seconds")
        rows = [
            (
                run.name,
                "*" if run.name in front else "",
                *(f"{score:.4f}" for score in (run.val, run.test, run.test_float)),
                *(f"{getattr(run, name) / unit:,.1f}" for name, (_, unit) in _UNITS.items()),
                f"{run.seconds:.0f}",
            )
            for run in self.runs
        ]
        title = f"{self.metric} of {len(rows)} runs; val and test: int8 on TensorFlow Lite Micro"
        failed = [f"failed: {failure.name}: {failure.error}" for failure in self.failures]
        return "\n".join([render(header, rows, title=title, width=140), *failed])


def to_json(run: Run, folder: Path) -> dict[str, Any]:
    """Return a run as a JSON object; the path of its model is relative to `folder`."""
    return {**dataclasses.asdict(run), "model": run.model.relative_to(folder).as_posix()}


def from_json(value: dict[str, Any], folder: Path) -> Run:
    """Return the run that `to_json` made an object of.

    Raises:
        TypeError, KeyError: Other fields than those of a run.
    """
    return Run(**{**value, "budget": Budget(**value["budget"]), "model": folder / value["model"]})
