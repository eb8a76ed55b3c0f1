"""Pictures: the channels kept a layer, the memory over the operators, the noise of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tfmcu_prune.tflm.footprint import Footprint

# Okabe and Ito's colours, which any colour vision tells apart: https://jfly.uni-koeln.de/color/
_DENSE, _KEPT, _PERSISTENT, _LIMIT = "#c8c8c8", "#0072b2", "#56b4e9", "#d55e00"


@dataclass(frozen=True)
class Bars:
    """What is drawn of a network.

    Args:
        channels: Channels of each layer, by name.
        memory: Each operator and the bytes alive while it runs.
        persistent: Bytes that TensorFlow Lite Micro holds all the time.
    """

    channels: Mapping[str, int]
    memory: Sequence[tuple[str, int]]
    persistent: int = 0


def bars(model: keras.Model, footprint: Footprint) -> Bars:
    """Return what is drawn of a network.

    Args:
        model: The Keras model; its layers with a kernel are drawn.
        footprint: What its .tflite costs.
    """
    from keras import layers

    kernels: list[Any] = [x for x in model.layers if x.weights and not isinstance(x, layers.BatchNormalization)]
    channels = {layer.name: int(layer.output.shape[-1]) for layer in kernels}
    return Bars(channels, tuple((operator.name, operator.live) for operator in footprint.operators), footprint.tail)


def comparison(dense: Bars, pruned: Bars, *, arena: int | None = None) -> Figure:
    """Draw a dense network and its pruned one: channels a layer on the left, memory over the operators on the right.

    Args:
        dense: The network before.
        pruned: The network after, with the same layers.
        arena: The budget's arena in bytes, drawn as a line; `None` for no line.

    Returns:
        A matplotlib figure that belongs to no window; save it with `figure.savefig(path)`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> dense, pruned = Bars({"conv": 8}, [("CONV_2D", 4096)], 900), Bars({"conv": 3}, [("CONV_2D", 1536)], 700)
        >>> [ax.get_title() for ax in comparison(dense, pruned, arena=2048).axes]
        ['Channels kept a layer', 'Memory over the operators']
    """
    figure = _figure(12, max(len(dense.channels), 14))
    left, right = figure.subplots(1, 2)
    _draw_channels(left, dense.channels, pruned.channels)
    _draw_memory(right, dense, pruned, arena)
    return figure


def noise(ratios: Mapping[str, float]) -> Figure:
    """Draw the signal-to-quantization-noise ratio of each layer.

    Args:
        ratios: dB of each layer, in the order in which they run.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> noise({"conv": 38.0, "dense": 31.5}).axes[0].get_xlabel()
        'signal-to-quantization-noise ratio, dB'
    """
    figure = _figure(7, len(ratios))
    ax, places = figure.subplots(), range(len(ratios))
    ax.plot(list(ratios.values()), places, color=_KEPT, marker="o", markersize=4)
    ax.set_yticks(places, list(ratios))
    ax.invert_yaxis()
    ax.set_xlabel("signal-to-quantization-noise ratio, dB")
    ax.set_title("Noise layer by layer: more dB is better")
    _finish(ax, "x", legend=False)
    return figure


def _figure(width: float, rows: int) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Pictures need the package 'matplotlib': pip install 'tfmcu-prune[report]'", name="matplotlib"
        ) from error
    return Figure(figsize=(width, 1.6 + 0.26 * rows), layout="constrained", dpi=130)


def _draw_channels(ax: Axes, dense: Mapping[str, int], pruned: Mapping[str, int]) -> None:
    names, places = list(dense), range(len(dense))
    kept = [pruned[name] for name in names]
    ax.barh(places, list(dense.values()), color=_DENSE, label="dense")
    ax.barh(places, kept, color=_KEPT, label="kept")
    for place, (name, count) in enumerate(zip(names, kept, strict=True)):
        ax.annotate(f"{count} of {dense[name]}", (dense[name], place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.set_xlabel("channels")
    ax.set_title("Channels kept a layer")
    _finish(ax, "x")


def _draw_memory(ax: Axes, dense: Bars, pruned: Bars, arena: int | None) -> None:
    kib = 1 / 1024
    ax.bar(*_heights(dense.memory, kib, dense.persistent), color=_DENSE, label="dense, all in all")
    places, live = _heights(pruned.memory, kib, 0)
    held = pruned.persistent * kib
    ax.bar(places, live, bottom=held, color=_KEPT, label="pruned: activations and scratch")
    ax.bar(places, held, color=_PERSISTENT, label="pruned: persistent")
    if arena is not None:
        ax.axhline(arena * kib, color=_LIMIT, linestyle="--", label=f"arena budget, {arena * kib:.4g} KiB")
    longest = max(dense.memory, pruned.memory, key=len)
    names = [name.removesuffix("_2D").lower().replace("_", " ") for name, _ in longest]
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_ylabel("KiB while the operator runs")
    ax.set_title("Memory over the operators")
    ax.set_ylim(0, 1.4 * ax.get_ylim()[1])  # room for the legend above the bars
    _finish(ax, "y")


def _heights(memory: Sequence[tuple[str, int]], scale: float, more: int) -> tuple[range, list[float]]:
    return range(len(memory)), [(size + more) * scale for _, size in memory]


def _finish(ax: Axes, axis: Literal["x", "y"], *, legend: bool = True) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis=axis, color="#e6e6e6")
    if legend:
        ax.legend(frameon=False)
