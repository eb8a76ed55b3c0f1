"""The commands `estimate` and `boards`. They print, and start without TensorFlow, Keras or numpy."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..boards import BOARDS, Board
from . import targets
from .latency import LATENCY_SOURCE, latency

if TYPE_CHECKING:
    from ..budget import Budget
    from .footprint import Footprint

Subparsers = Any  # argparse has no public name for what add_subparsers() returns

_RESOURCES = ("arena", "flash", "macs")


def add_estimate(subparsers: Subparsers) -> None:
    """Add `estimate`: what a model costs, and whether it fits a budget."""
    parser = subparsers.add_parser(
        "estimate",
        help="arena, flash and MACs of a .tflite file on TensorFlow Lite Micro",
        description="Predict arena, flash, code, stack and MACs of a .tflite file on TensorFlow Lite Micro.",
    )
    parser.add_argument("model", metavar="MODEL.tflite")
    parser.add_argument("--target", default="cortex-m4", choices=list(targets.TARGETS), metavar="TARGET",
                        help=f"{', '.join(targets.TARGETS)} (default: cortex-m4)")  # fmt: skip
    parser.add_argument("--kernels", default="cmsis-nn", choices=targets.KERNELS, help="default: cmsis-nn")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the memory alive over the operators (needs matplotlib)")
    parser.add_argument("--require", metavar="LIMITS",
                        help='exit with 1 unless it fits, such as "arena=64KiB,flash=128KiB,macs=3M"')  # fmt: skip
    parser.set_defaults(run=run_estimate)


def add_boards(subparsers: Subparsers) -> None:
    """Add `boards`: where a model fits and how much is left."""
    parser = subparsers.add_parser(
        "boards",
        help="the boards on which a .tflite file fits",
        description="Show on which boards a .tflite file fits, with how much memory left.",
    )
    parser.add_argument("model", metavar="MODEL.tflite")
    parser.add_argument("--kernels", default="cmsis-nn", choices=targets.KERNELS, help="default: cmsis-nn")
    parser.add_argument("--reserve-sram", default="0", metavar="BYTES", help='SRAM for the rest, such as "32KiB"')
    parser.add_argument("--reserve-flash", default="0", metavar="BYTES", help="flash for the rest of the program")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(run=run_boards)


def run_estimate(args: argparse.Namespace) -> None:
    """Run `estimate`; errors are those of `console.guarded`."""
    from .footprint import footprint

    budget = parse_limits(args.require) if args.require else None
    fp = footprint(args.model, target=args.target, kernels=args.kernels)
    print(json.dumps(fp.to_dict(), indent=2) if args.json else fp)
    if args.plot:
        _plot(fp, args.plot)
    if budget is not None:
        fp.require(budget)


def run_boards(args: argparse.Namespace) -> int:
    """Run `boards`; return 1 if the model fits nowhere; errors are those of `console.guarded`."""
    reserves = parse_size(args.reserve_sram), parse_size(args.reserve_flash)
    rows = [board_row(board, args.model, args.kernels, reserves) for board in BOARDS]
    print(json.dumps(rows, indent=2) if args.json else _table(rows))
    return 0 if any(row["fits"] for row in rows) else 1


def parse_limits(text: str) -> Budget:
    """Return the budget of a text such as "arena=64KiB,flash=128KiB"."""
    from ..budget import Budget

    limits: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name.strip() not in _RESOURCES or not equals:
            raise ValueError(
                f"--require must be a list such as arena=64KiB,flash=128KiB,macs=3M with names of {_RESOURCES}. "
                f"Received: {text!r}"
            )
        limits[name.strip()] = value
    return Budget(**limits)


def parse_size(text: str) -> int:
    """Return the bytes of a text such as "32KiB", 0 included."""
    from ..budget import Budget

    return 0 if text.strip() == "0" else int(Budget(flash=text).flash or 0)


def board_row(
    board: Board, model: bytes | str, kernels: str = "cmsis-nn", reserves: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Return what `boards` tells of a model on one board; `reserves` are bytes of SRAM and flash for the rest."""
    from .footprint import footprint

    fp = footprint(model, target=board.core, kernels=kernels)
    sram, flash = board.sram - reserves[0], board.flash - reserves[1]
    best, worst = latency(board, fp.macs, fp.kernels)
    left = sram - fp.arena - (fp.stack or 0), flash - fp.flash - (fp.code or 0)
    return {
        "board": board.name, "title": board.title, "core": board.core, "clock_hz": board.clock_hz,
        "kernels": fp.kernels, "arena": fp.arena, "stack": fp.stack, "flash": fp.flash, "code": fp.code,
        "sram_left": left[0], "flash_left": left[1], "fits": min(left) >= 0 and "arena" not in fp.uncertain,
        "uncertain": dict(fp.uncertain), "latency_s": [best, worst], "source": board.source,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'board':<34}{'core':<12}{'MHz':>5}  {'fits':<5}{'SRAM left':>12}{'flash left':>12}{'latency (ms)':>16}"]
    for row in rows:
        best, worst = (1000 * value for value in row["latency_s"])
        lines.append(
            f"{row['title']:<34}{row['core']:<12}{row['clock_hz'] // 1_000_000:>5}  {'yes' if row['fits'] else 'NO':<5}"
            f"{row['sram_left']:>12,}{row['flash_left']:>12,}{f'{best:.3g} - {worst:.3g}':>16}"
        )
    lines += [
        "",
        "SRAM left counts the arena, and TFLM's stack where it was measured; flash left the model, and TFLM's code",
        "where it was measured (Cortex-M4, M7, M33).",
        f"Latency is {LATENCY_SOURCE}.",
        "",
        *(f"  {row['title']}: {row['source']}" for row in rows),
    ]
    return "\n".join(lines)


def _plot(fp: Footprint, path: str) -> None:
    from .plot import plot_memory

    plot_memory(fp, path)
