"""A picture of the memory alive over the operators."""

from __future__ import annotations

import os

from .footprint import Footprint


def plot_memory(fp: Footprint, path: str | os.PathLike[str]) -> None:
    """Draw the bytes alive while each operator runs, the peak marked, and save the picture.

    Args:
        fp: The footprint.
        path: Where to save it; the suffix chooses the format (png, svg, pdf).

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib, which is not installed: pip install matplotlib") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.add_subplot()
    kib = [operator.live / 1024 for operator in fp.operators]
    scratch = [operator.scratch / 1024 for operator in fp.operators]
    places = [operator.index for operator in fp.operators]
    colors = ["tab:red" if operator.index == fp.peak.operator else "tab:blue" for operator in fp.operators]
    axes.bar(places, kib, color=colors, label="activations and scratch")
    axes.bar(places, scratch, color="black", alpha=0.4, label="of it scratch")
    axes.axhline(fp.head / 1024, color="gray", linestyle="--", label=f"planned head {fp.head / 1024:.1f} KiB")
    axes.set_xticks(places, [f"{o.index} {o.name.lower()}" for o in fp.operators], rotation=90, fontsize=6)
    axes.set_ylabel("KiB alive")
    axes.set_title(
        f"Arena {fp.arena / 1024:.1f} KiB on {fp.target} ({fp.kernels}); peak at operator {fp.peak.operator}"
    )
    axes.legend()
    figure.savefig(path)
