"""A report as HTML and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import keras

from tfmcu_prune.files import is_gated
from tfmcu_prune.reporting.charts import Chart, lines
from tfmcu_prune.reporting.facts import Facts, collect

_FIRST = {"arena": "arena", "flash": "flash", "macs": "MACs"}


@dataclass(frozen=True)
class PruningReport:
    """What a pruning did.

    Args:
        html: One page that needs no other file and no network.
        markdown: The same as Markdown, without the charts.
        facts: The values.
    """

    html: str
    markdown: str
    facts: Facts


def report(
    gated: keras.Model,
    calibration: Any,
    *,
    history: keras.callbacks.History | Mapping[str, Sequence[float]] | None = None,
    dense: keras.Model | None = None,
    test: tuple[Any, Any] | None = None,
    title: str | None = None,
) -> PruningReport:
    """Tell what a pruning did, what binds, on which boards the result fits, and why it does not get smaller.

    Both networks, with all channels and with those that are kept, are converted and measured; that takes seconds.

    Args:
        gated: What `prunable` returned, trained with `PruneCallback`.
        calibration: Representative inputs, as for `convert`.
        history: What `fit` returned, or its dict of series: for the charts over the training.
        dense: The trained network before the pruning, for its accuracy. Default: the network with all channels, which
            costs the same, without an accuracy.
        test: Samples and their class numbers, for the accuracies in float and in int8 on TensorFlow Lite Micro.
        title: The heading. Default: the model's name.

    Returns:
        The report: write `report.html` and `report.markdown` to files.

    Raises:
        ValueError: Not a gated model, or data that does not fit it.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import tfmcu_prune
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"),
        ...                           keras.layers.Flatten(), keras.layers.Dense(2, name="head")])
        >>> gated = tfmcu_prune.prunable(model)
        >>> tfmcu_prune.set_mask(gated, np.array([True, False, True, True]))
        >>> found = tfmcu_prune.report(gated, np.random.default_rng(0).normal(size=(8, 8, 8, 1)))
        >>> found.facts.kept
        (('conv', 4, 3), ('head', 2, 2))
    """
    if not isinstance(gated, keras.Model) or not is_gated(gated):
        raise ValueError(f"Expected a gated model, as tfmcu_prune.prunable returns it. Received: {gated!r}")
    if isinstance(history, keras.callbacks.History):
        history = history.history
    facts = collect(
        gated, calibration, dense=dense, test=test, history=history or {}, title=gated.name if title is None else title
    )
    values = {"facts": facts, "rows": _rows(facts), "charts": _charts(facts), "first": _FIRST}
    html, markdown = [_environment(kind == "html").get_template(f"report.{kind}.jinja") for kind in ("html", "md")]
    return PruningReport(html.render(**values), markdown.render(**values), facts)


@cache
def _environment(html: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfmcu_prune.reporting"),
        undefined=jinja2.StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(kib=_kib, count="{:,}".format, percent=_percent, cell=_cell)
    return environment


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f} KiB"


def _percent(part: float) -> str:
    return f"{part:.1%}"


def _cell(text: object) -> str:
    r"""A text as plain text within a line of Markdown.

    Example:
        >>> print(_cell("a|b <i>"))
        a\|b \<i\>
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _rows(facts: Facts) -> list[tuple[str, str, str, str, str]]:
    """Before and after: name, before, after, how many times less, the budget."""
    before, after, budget = facts.before, facts.after, facts.budget
    rows = [
        ("accuracy, float", _accuracy(before.accuracy), _accuracy(after.accuracy), "", ""),
        ("accuracy, int8 on TFLM", _accuracy(before.accuracy_int8), _accuracy(after.accuracy_int8), "", ""),
    ]
    rows = rows if after.accuracy is not None else []
    for name, show in (("arena", _kib), ("flash", _kib), ("macs", "{:,}".format)):
        limit = getattr(budget, name)
        rows.append((_FIRST[name], *_pair(getattr(before.footprint, name), getattr(after.footprint, name), show),
                     "" if limit is None else show(limit)))  # fmt: skip
    rows.append(("weights", *_pair(before.params, after.params, "{:,}".format), ""))
    channels = sum(before for _, before, _ in facts.kept), sum(after for _, _, after in facts.kept)
    rows.append(("channels", *_pair(*channels, "{:,}".format), ""))
    return rows


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _pair(before: int, after: int, show: Any) -> tuple[str, str, str]:
    return show(before), show(after), f"{before / after:.1f}x" if after else ""


def _charts(facts: Facts) -> list[Chart]:
    """The training: accuracies, resources as parts of their budgets, and shadow prices, where the history has them."""
    series, limits = facts.training, facts.budget.limits()
    accuracies = [(name, line) for name, line in series.items() if name.endswith("accuracy")]
    parts = [
        (_FIRST[name], [value / limit for value in series[name]]) for name, limit in limits.items() if name in series
    ]
    prices = [(_FIRST[name], series[f"price_{name}"]) for name in limits if f"price_{name}" in series]
    charts = []
    if accuracies:
        charts.append(lines("Accuracy", accuracies, "{:.1%}".format))
    if parts:
        charts.append(lines("Parts of the budgets", parts, "{:.0%}".format, limit=1.0))
    if prices:
        charts.append(lines("Shadow prices of the budgets", prices, "{:.3g}".format))
    return charts
