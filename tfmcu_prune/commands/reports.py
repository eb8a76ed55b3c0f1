"""The command `report`."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmcu_prune.console import import_keras_quietly

_FILES = ("report.html", "report.md")
_EPILOG = """
examples:
  tfmcu-prune report gated.keras --calibration samples.npz --output build/report
  tfmcu-prune report gated.keras --calibration samples.npz --dense dense.keras --test test.npz \\
      --history history.json --title "keywords, 48 KiB" --output build/report --force

GATED.keras is what tfmcu_prune.prunable returned, trained and saved. The history is that of `fit`, as
json.dump(history.history, file) or keras.callbacks.CSVLogger writes it. The test file is a .npz with x and y, the
numbers of the classes.

exit codes: 0 written, 2 bad input.
"""


def add_report(subparsers: Any) -> None:
    """Add `report`: what a pruning did, as one HTML page and one Markdown file."""
    parser = subparsers.add_parser(
        "report",
        help="what a pruning did, as one HTML page",
        description="Tell what a pruning did: costs before and after, what binds, on which boards it fits, and why it "
        "does not get smaller. Writes report.html, which needs no other file, and report.md.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="GATED.keras")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE", help="as for convert")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--history", type=Path, metavar="FILE", help="the history of the training, .json or .csv")
    parser.add_argument("--dense", type=Path, metavar="DENSE.keras", help="the trained network before the pruning")
    parser.add_argument("--test", type=Path, metavar="FILE", help="test samples, a .npz with x and y: accuracies")
    parser.add_argument("--title", help="the heading (default: the model's name)")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    """Run `report`; errors are those of `console.guarded`."""
    from tfmcu_prune import files

    files.require_free(args.output, _FILES, force=args.force)
    history = _history(args.history) if args.history else None
    test = _test(files.read_npz(args.test), args.test) if args.test else None
    import_keras_quietly()
    from tfmcu_prune.reporting import report

    gated = files.load_unstripped(args.model)
    if not files.is_gated(gated):
        raise ValueError(f"Expected a gated model, as tfmcu_prune.prunable returns it. Received: {args.model}")
    names = [tensor.name for tensor in gated.inputs]
    calibration = files.chosen_arrays(args.calibration, names, 200)
    dense = files.load_model(args.dense) if args.dense else None
    found = report(gated, calibration, history=history, dense=dense, test=test, title=args.title)
    contents = dict(zip(_FILES, (found.html.encode(), found.markdown.encode()), strict=True))
    print("Written:", *files.write_all(args.output, contents, force=args.force), sep="\n  ")


def _history(path: Path) -> dict[str, list[float]]:
    try:
        value = _columns(path) if path.suffix.lower() == ".csv" else json.loads(path.read_text())
        return {str(name): [float(number) for number in series] for name, series in value.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error) as error:
        raise ValueError(
            "Expected the history of a training: JSON of a list of numbers for each name, or CSV. "
            f"Received: {path}: {error}"
        ) from error


def _columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _test(arrays: Mapping[str, Any], path: Path) -> tuple[Any, Any]:
    if set(arrays) != {"x", "y"}:
        raise ValueError(f"Expected a .npz with x and y. Received: {path} with {', '.join(arrays) or 'no array'}")
    return arrays["x"], arrays["y"]
