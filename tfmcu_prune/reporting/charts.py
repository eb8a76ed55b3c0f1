"""Line charts as inline SVG, which needs no other package and stays sharp in print."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 340, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 332, 10, 146
_STEPS = (1, 2, 2.5, 5, 10)

# Okabe and Ito's colours, which any colour vision tells apart: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


@dataclass(frozen=True)
class Chart:
    """A chart and its legend.

    Args:
        title: What it shows.
        svg: The picture.
        legend: Name, colour and last value of each line.
    """

    title: str
    svg: Markup
    legend: tuple[tuple[str, str, str], ...]


def lines(
    title: str,
    series: Sequence[tuple[str, Sequence[float]]],
    show: Callable[[float], str],
    *,
    limit: float | None = None,
) -> Chart:
    """Draw series over the epochs.

    Args:
        title: What the chart shows.
        series: Name and values of each line, as many for each.
        show: How a value is written.
        limit: Where to draw a dashed line.

    Raises:
        ValueError: A series without values, or with one that is no finite number.
    """
    if not all(len(line) and all(map(math.isfinite, line)) for _, line in series):
        raise ValueError(f"Expected finite numbers, one or more a line, to draw {title!r}. Received: {series!r}")
    values = [value for _, line in series for value in line] + ([] if limit is None else [limit])
    ticks = _ticks(min(values), max(values))
    count = max(len(line) for _, line in series)
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, title)]
    parts += [_rule(_y(tick, ticks), show(tick)) for tick in ticks]
    parts += [_epoch(epoch, count) for epoch in sorted({1, (count + 1) // 2, count})]
    if limit is not None:
        parts.append(_path([(_LEFT, _y(limit, ticks)), (_RIGHT, _y(limit, ticks))], "#444", dashed=True))
    for (_, line), colour in zip(series, COLOURS, strict=False):
        parts.append(_path([(_x(i + 1, count), _y(value, ticks)) for i, value in enumerate(line)], colour))
    legend = tuple((name, colour, show(line[-1])) for (name, line), colour in zip(series, COLOURS, strict=False))
    return Chart(title, Markup("").join([*parts, Markup("</svg>")]), legend)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that the values lie between.

    Example:
        >>> _ticks(0.31, 0.97)
        [0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * s for s in _STEPS if unit * s >= span / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _x(epoch: int, count: int) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (epoch - 1) / max(count - 1, 1)


def _y(value: float, ticks: Sequence[float]) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _rule(y: float, text: str) -> Markup:
    rule = Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="rule"/>').format(_LEFT, _RIGHT, y, y)
    return rule + Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LEFT - 5, y + 3.5, text)


def _epoch(epoch: int, count: int) -> Markup:
    anchor = "end" if epoch == count and count > 1 else "middle"
    return Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
        _x(epoch, count), _BOTTOM + 16, anchor, f"epoch {epoch}" if epoch == count else epoch
    )


def _path(points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> Markup:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" stroke="{}" class="{}"/>').format(where, colour, "limit" if dashed else "line")
