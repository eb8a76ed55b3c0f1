"""The command `tfmcu-prune`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfmcu_prune
from tfmcu_prune.console import guarded, import_keras_quietly, progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; default: those of the process.

    Returns:
        Exit code: 0 done, 1 a model or a budget does not fit, 2 bad input or a package that is missing.
    """
    args = _parser().parse_args(argv)
    return guarded(args.run, args)


def _parser() -> argparse.ArgumentParser:
    from tfmcu_prune.commands import conversion, export, reports, zoo
    from tfmcu_prune.tflm import commands

    parser = argparse.ArgumentParser(
        prog="tfmcu-prune",
        description="Prune Keras models to the memory, flash and time of a microcontroller, and tell what models cost.",
        epilog="Exit codes: 0 done, 1 a model or a budget does not fit, 2 bad input.",
    )
    parser.add_argument("--version", action="version", version=f"tfmcu-prune {tfmcu_prune.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_estimate(subparsers)
    commands.add_boards(subparsers)
    conversion.add_convert(subparsers)
    export.add_export(subparsers)
    reports.add_report(subparsers)
    zoo.add_zoo(subparsers)
    _add_inspect(subparsers)
    _add_demo(subparsers)
    return parser


def _add_inspect(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="show the prunable channels of a Keras model",
        description="Show which channels of a Keras model can be pruned, which go together, and what is fixed and why. "
        "Of a gated model, what its mask has left is shown.",
        epilog="Example: tfmcu-prune inspect model.keras",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> None:
    import_keras_quietly()
    from tfmcu_prune.files import load_model

    print(tfmcu_prune.channel_groups(load_model(args.model)))


def _add_demo(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="prune a small network on real data in about a minute",
        description="Train a small network on 1,797 handwritten digits, prune it to a budget while it trains on, and "
        "compare the two. The quick start of the repository does the same with a larger network.",
    )
    parser.add_argument("--epochs", type=_positive, default=12, help="epochs of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and training (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a folder to write models, report and picture to")
    parser.set_defaults(run=_demo)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, received {text!r}")
    return int(text)


def _demo(args: argparse.Namespace) -> None:
    import_keras_quietly()
    from tfmcu_prune import datasets, demo, results, zoo

    def network(input_shape: Sequence[int], classes: int) -> Any:
        return zoo.ds_cnn(input_shape, classes, kernel=(3, 3), strides=1, dropout=(0, 0.1))

    data = datasets.load("digits", seed=args.seed)
    budget = tfmcu_prune.Budget(arena="7KiB", flash="13KiB", macs="250k")
    job = demo.Job(data, network, budget, args.epochs, seed=args.seed, verbose=progress())
    outcome = demo.run(job, tell=print)
    print(results.as_table(outcome.report))
    if args.output is not None:
        print("Written:", *demo.write(outcome, args.output), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
