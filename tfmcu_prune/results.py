"""What a comparison of a dense network with its pruned one found: as a table, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfmcu_prune.budget import Budget
from tfmcu_prune.plots import Bars
from tfmcu_prune.tables import markdown, render


@dataclass(frozen=True)
class Network:
    """What one network does and costs.

    Args:
        accuracy: Of the Keras model in float, over the whole test split, 0 to 1.
        accuracy_int8: Of the int8 .tflite on TensorFlow Lite Micro, over the whole test split.
        arena: Tensor arena, bytes.
        flash: The .tflite, bytes.
        macs: Multiply-accumulates of one inference.
        params: Weights of the Keras model.
        epochs: Epochs of its own training; the pruned network has the dense one's behind it as well.
        seconds: Time of its own training.
        bars: Channels of each layer and memory of each operator.
    """

    accuracy: float
    accuracy_int8: float
    arena: int
    flash: int
    macs: int
    params: int
    epochs: int
    seconds: float
    bars: Bars


@dataclass(frozen=True)
class Report:
    """A dense network, and a pruned one that went on from its weights.

    Args:
        network: Name of the architecture.
        dataset: Name of the data set.
        samples: Samples of the splits "train", "val" and "test".
        seed: Of data, weights and training.
        budget: What the pruned network was to fit.
        dense: The network as it was designed.
        pruned: The network that was pruned while it trained.
    """

    network: str
    dataset: str
    samples: Mapping[str, int]
    seed: int
    budget: Budget
    dense: Network
    pruned: Network

    def cut(self, resource: str) -> float:
        """Return how many times less the pruned network takes of "arena", "flash", "macs" or "params"."""
        return float(getattr(self.dense, resource) / getattr(self.pruned, resource))


def as_json(report: Report) -> str:
    """Return a report as JSON; `accuracy_int8_tflm` is that of the pruned network, `epochs_pruned` come on top."""
    dense, pruned = report.dense, report.pruned
    value = {
        "network": report.network,
        "dataset": report.dataset,
        "samples": dict(report.samples),
        "seed": report.seed,
        "budget": dataclasses.asdict(report.budget),
        "accuracy_dense": dense.accuracy,
        "accuracy_dense_int8_tflm": dense.accuracy_int8,
        "accuracy_pruned": pruned.accuracy,
        "accuracy_int8_tflm": pruned.accuracy_int8,
        "epochs_dense": dense.epochs,
        "epochs_pruned": pruned.epochs,
        "seconds_dense": round(dense.seconds, 1),
        "seconds_pruned": round(pruned.seconds, 1),
        "dense": _costs(dense),
        "pruned": _costs(pruned),
        "cut": {name: round(report.cut(name), 2) for name in ("arena", "flash", "macs", "params")},
    }
    return json.dumps(value, indent=2) + "\n"


def _costs(network: Network) -> dict[str, Any]:
    names = ("arena", "flash", "macs", "params")
    return {**{name: getattr(network, name) for name in names}, "channels": dict(network.bars.channels)}


def as_table(report: Report) -> str:
    """Return a report as plain text: before and after, then the channels of each layer."""
    title = f"{report.network} on {report.dataset} ({report.samples['test']:,} test samples), seed {report.seed}"
    before_after = render(("", "dense", "pruned", "cut", "budget"), _rows(report), title=title)
    return before_after + "\n" + render(("layer", "dense", "pruned"), _layers(report))


def as_markdown(report: Report, *, picture: str | None = None) -> str:
    """Return a report as Markdown.

    Args:
        report: What to tell.
        picture: Path of a picture to show, relative to the Markdown file.
    """
    splits = ", ".join(f"{count:,} {name}" for name, count in report.samples.items())
    parts = [
        f"# {report.network} on {report.dataset}: dense and pruned",
        f"Samples: {splits}. Seed {report.seed}. The pruning starts from the trained dense network. Accuracies are "
        "over the whole test split, int8 on TensorFlow Lite Micro; arena, flash and MACs are those of the int8 files.",
        markdown(("", "dense", "pruned", "cut", "budget"), _rows(report)),
        *([f"![Channels kept a layer, and memory over the operators]({picture})"] if picture else []),
        "## Channels a layer",
        markdown(("layer", "dense", "pruned"), _layers(report)),
    ]
    return "\n\n".join(parts) + "\n"


def inserted(text: str, report: Report) -> str:
    """Return a Markdown text with the table of a report between the markers of "results", whatever was there."""
    splits = ", ".join(f"{count:,} {name}" for name, count in report.samples.items())
    title = f"{report.network} on {report.dataset} ({splits} samples), seed {report.seed}:"
    table = markdown(("", "dense", "pruned", "cut", "budget"), _rows(report))
    return between(text, "results", f"{title}\n\n{table}")


def between(text: str, name: str, body: str) -> str:
    """Return a text with `body` between its lines `<!-- name -->` and `<!-- end of name -->`.

    Raises:
        ValueError: A marker is missing.
    """
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, start, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not start or not end:
        raise ValueError(f"Expected the lines {first} and {last} in the Markdown file. Received neither or one.")
    return f"{head}{start}\n{body}\n{end}{tail}"


def _rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    dense, pruned = report.dense, report.pruned

    def row(name: str, resource: str, limit: int | None, show: Any) -> tuple[str, str, str, str, str]:
        before, after = show(getattr(dense, resource)), show(getattr(pruned, resource))
        return name, before, after, f"{report.cut(resource):.1f}x", "" if limit is None else show(limit)

    return [
        ("accuracy, float", f"{dense.accuracy:.2%}", f"{pruned.accuracy:.2%}", "", ""),
        ("accuracy, int8 on TFLM", f"{dense.accuracy_int8:.2%}", f"{pruned.accuracy_int8:.2%}", "", ""),
        row("arena, KiB", "arena", report.budget.arena, _kib),
        row("flash, KiB", "flash", report.budget.flash, _kib),
        row("MACs, thousands", "macs", report.budget.macs, lambda macs: f"{macs / 1000:,.1f}"),
        row("weights", "params", None, "{:,}".format),
        ("epochs of training", str(dense.epochs), f"{dense.epochs} + {pruned.epochs}", "", ""),
        ("seconds of training", f"{dense.seconds:.0f}", f"{dense.seconds:.0f} + {pruned.seconds:.0f}", "", ""),
    ]


def _layers(report: Report) -> list[tuple[str, str, str]]:
    before, after = report.dense.bars.channels, report.pruned.bars.channels
    return [(name, str(count), str(after[name])) for name, count in before.items()]


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f}"
