"""The command `export`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from tfmcu_prune.tflm import targets

_TARGETS = ("arduino", "esp-idf", "zephyr", "cmake")
_EPILOG = """
examples:
  tfmcu-prune export firmware/kws.tflite --target arduino ~/Arduino/keywords
  tfmcu-prune export firmware/kws.tflite --target zephyr app --input samples.npz
  tfmcu-prune export firmware/kws.tflite --target cmake app --processor cortex-m55 --force

The application runs one recorded input and compares the output with the one that TensorFlow Lite Micro computes here:
the first flash proves the port. Its README.md says how to build it.

exit codes: 0 written, 2 bad input.
"""


def add_export(subparsers: Any) -> None:
    """Add `export`: an application around a .tflite."""
    parser = subparsers.add_parser(
        "export",
        help="an application around a .tflite: Arduino, ESP-IDF, Zephyr, CMake",
        description="Write an application around a .tflite that proves itself on the device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL.tflite")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to write to")
    parser.add_argument("--target", required=True, choices=_TARGETS, help="the ecosystem")
    parser.add_argument("--input", type=Path, metavar="FILE",
                        help="inputs, .npz or .npy, to record the first of (default: random values)")  # fmt: skip
    parser.add_argument("--name", help="what symbols are called (default: as the model's file)")
    processors = list(targets.TARGETS)
    parser.add_argument("--processor", choices=processors, metavar="PROCESSOR",
                        help=f"{', '.join(processors)} (default: esp32 for esp-idf, else cortex-m4)")  # fmt: skip
    parser.add_argument("--kernels", default="cmsis-nn", choices=targets.KERNELS, help="default: cmsis-nn")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Run `export`; errors are those of `console.guarded`."""
    from tfmcu_prune import files
    from tfmcu_prune.firmware.projects import project_files
    from tfmcu_prune.tflm.schema import read_model

    sketch = _sketch(args.folder) if args.target == "arduino" else None
    data = args.model.read_bytes()
    graph = read_model(data).main
    names = [graph.tensors[i].name for i in graph.inputs]
    samples = files.chosen_arrays(args.input, names, 1) if args.input else None
    contents = project_files(
        data,
        args.model.stem if args.name is None else args.name,
        args.target,
        samples=samples,
        processor=args.processor,
        kernels=args.kernels,
        sketch=sketch,
    )
    files.write_all(args.folder, contents, force=args.force)
    print(f"Written: {args.folder}, {len(contents)} files. How to build it: {args.folder / 'README.md'}")


def _sketch(folder: Path) -> str:
    """The name of an Arduino sketch, which is that of its folder."""
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", name):
        raise ValueError(
            "An Arduino sketch is named as its folder: expected up to 63 letters, digits, '_', '-' and '.'. "
            f"Received: {name!r}"
        )
    return name
