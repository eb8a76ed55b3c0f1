"""Which runs a grid is made of, and its pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BASELINES = (
    "uniform", "ours", "scratch", "one_shot_l2", "cubic_l2", "taylor", "random", "straight_through", "morphnet",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One task, network, scenario and budget; all methods and seeds are run on it.

    Args:
        epochs: Of the dense training.
        tune: Epochs of the compression in scenario B.
        samples: Training samples at most; `None` for all.
        seconds: What one run takes on two cores, for cutting pieces.
    """

    task: str
    network: str
    scenario: str
    level: str
    epochs: int
    tune: int = 0
    samples: int | None = None
    seconds: int = 90


@dataclass(frozen=True)
class Run:
    """One training of a grid."""

    cell: Cell
    method: str
    seed: int


FASHION = Cell("fashion-mnist-14", "vgg_small", "A", "tight", 8, 0, 6_000, 70)
SPEECH = Cell("speech11", "ds_cnn", "A", "tight", 12, 0, None, 90)
CIFAR = Cell("cifar10", "resnet8", "A", "tight", 5, 0, 10_000, 120)


def _at(cell: Cell, scenario: str, level: str) -> Cell:
    tune = max(1, round(0.3 * cell.epochs)) if scenario == "B" else 0
    return Cell(cell.task, cell.network, scenario, level, cell.epochs, tune, cell.samples, cell.seconds)


def _small() -> list[Cell]:
    order = [("A", "tight"), ("B", "tight"), ("A", "extreme"), ("A", "loose"), ("B", "extreme"), ("B", "loose")]
    return [_at(cell, *which) for which in order for cell in (FASHION, SPEECH, CIFAR)]


def _large() -> list[Cell]:
    """Full CIFAR-10 and speech at full length, for a GPU."""
    nets = (("cifar10", "vgg7", 30), ("cifar10", "vgg16", 60), ("cifar10", "resnet20", 60),
            ("cifar10", "mobilenet_v2", 60), ("cifar10", "resnet8", 60), ("speech11", "ds_cnn", 60),
            ("speech", "ds_cnn", 60), ("speech", "mobilenet_v1", 60))  # fmt: skip
    plain = [Cell(task, net, "A", "tight", epochs, 0, None, 300) for task, net, epochs in nets]
    return [_at(cell, s, level) for level in ("tight", "extreme", "loose") for s in "AB" for cell in plain]


GRIDS: dict[str, tuple[list[Cell], int]] = {
    "quick": ([Cell("fashion-mnist-14", "vgg_small", "A", "tight", 3, 0, 3_000, 40)], 1),
    "small": (_small(), 3),
    "large": (_large(), 3),
}
"""Cells and number of seeds by name."""


def runs(cells: Sequence[Cell], seeds: int, methods: Sequence[str] | None = None) -> Iterator[Run]:
    """Every run, seed by seed within a cell, so that a grid that is stopped has compared all methods alike."""
    for cell in cells:
        chosen = methods or ["dense", *(["dense_extra"] if cell.scenario == "B" else []), *BASELINES]
        for seed in range(seeds):
            for method in chosen:
                yield Run(cell, method, seed)


def piece(all_runs: Sequence[Run], number: int, count: int) -> list[Run]:
    """The number-th (from 1) of `count` consecutive pieces of about the same time."""
    if not 1 <= number <= count:
        raise ValueError(f"Expected --piece k/n with 1 <= k <= n. Received: {number}/{count}")
    total, spent, result = sum(run.cell.seconds for run in all_runs), 0.0, []
    for run in all_runs:
        if int(spent * count / total) == number - 1:
            result.append(run)
        spent += run.cell.seconds
    return result
