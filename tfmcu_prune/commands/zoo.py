"""The command `zoo`: the compressed models that come with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfmcu_prune.tables import render

_EPILOG = """
examples:
  tfmcu-prune zoo list
  tfmcu-prune zoo copy fashion-dscnn models     # the .tflite and its card
  tfmcu-prune zoo run fashion-dscnn             # on TensorFlow Lite Micro, the samples of the package
  tfmcu-prune zoo run fashion-dscnn --data      # all test samples of its card

exit codes: 0 done, 2 bad input or a package that is missing.
"""


def add_zoo(subparsers: Any) -> None:
    """Add `zoo` with its three commands."""
    parser = subparsers.add_parser(
        "zoo",
        help="compressed models that come with the package",
        description="Models that were pruned and converted, each with a card that says what it does, costs and was "
        "made of.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_list)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser("list", help="the models with accuracy and footprint, as a table; the default")
    copying = commands.add_parser("copy", help="write a model and its card into a folder")
    copying.add_argument("name", metavar="NAME")
    copying.add_argument("folder", type=Path, metavar="DIR", help="it is made if need be")
    copying.add_argument("--force", action="store_true", help="overwrite files that are there")
    copying.set_defaults(run=_copy)
    running = commands.add_parser("run", help="evaluate a model on TensorFlow Lite Micro")
    running.add_argument("name", metavar="NAME")
    running.add_argument("--data", action="store_true", help="on all test samples of its card, which other packages "
                         "carry; default: on the samples of this package")  # fmt: skip
    running.set_defaults(run=_run)


def _list(_: argparse.Namespace) -> None:
    from tfmcu_prune import compressed

    rows = []
    for card in map(compressed.card, compressed.names()):
        cost = card.footprint
        sizes = f"{cost.arena / 1024:.1f}", f"{cost.flash / 1024:.1f}", f"{cost.macs / 1000:,.1f}"
        rows.append((card.name, card.dataset, card.network, f"{card.accuracy:.2%}", *sizes, card.licence))
    header = ("name", "data", "network", "accuracy", "arena, KiB", "flash, KiB", "MACs, k", "licence of the data")
    print(render(header, rows, title="Accuracy: int8 on TensorFlow Lite Micro, test samples"))


def _copy(args: argparse.Namespace) -> None:
    from tfmcu_prune import compressed, files

    contents = {
        f"{args.name}.tflite": compressed.model(args.name),
        f"{args.name}.md": compressed.card(args.name).markdown().encode(),
    }
    print("Written:", *files.write_all(args.folder, contents, force=args.force), sep="\n  ")


def _run(args: argparse.Namespace) -> None:
    from tfmcu_prune import compressed, datasets, tflm

    card = compressed.card(args.name)
    if args.data:
        data, count = datasets.load(card.dataset), card.samples["test"]
        x, y, told = data.x_test[:count], data.y_test[:count], card.accuracy
    else:
        (x, y), told = compressed.sample(card.dataset), card.accuracy_sample
    accuracy = float((tflm.run(compressed.model(args.name), x).argmax(-1) == y).mean())
    print(
        f"{card.name}: accuracy {accuracy:.2%} of {len(y):,} test samples of {card.dataset}; the card says {told:.2%}"
    )
