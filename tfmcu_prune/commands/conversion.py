"""The command `convert`, and the door to it in tools/convert.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tfmcu_prune
from tfmcu_prune.budget import Budget
from tfmcu_prune.console import import_keras_quietly
from tfmcu_prune.tflm import targets

_EPILOG = """
examples:
  tfmcu-prune convert gated.keras --calibration samples.npz --output firmware
  tfmcu-prune convert small.keras --calibration samples.npy --output firmware --name keywords \\
      --labels labels.txt --arena 48KiB --flash 96KiB --macs 3M --force
  tfmcu-prune convert saved_model/ --calibration samples.npz --output firmware
  tfmcu-prune convert model.tflite --output firmware       # the sources of a model that is converted already

The calibration file holds 100 to 500 inputs, prepared as for training: a .npy array, or a .npz with a single array
or one array a model input, named as the input. The folder then has NAME.tflite, NAME.cc and NAME.h (the same as a C
array), op_resolver.h (the operators that it uses, and no others), arena.h (the size of the tensor arena) and model.json
(inputs, outputs, scales, zero points, labels, costs, versions). Either all of them are written, or none.

exit codes: 0 written, 1 the model does not fit the budget, 2 bad input.
"""


def add_convert(subparsers: Any) -> None:
    """Add `convert`: a Keras model to an int8 .tflite and the sources around it."""
    parser = subparsers.add_parser(
        "convert",
        help="a Keras model to int8 .tflite and C++ sources",
        description="Convert a Keras model (.keras, .h5, a SavedModel) to int8 for TensorFlow Lite Micro, and write it "
        "with the C++ sources around it. A gated model is stripped first.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help=".keras, .h5, a SavedModel folder, or .tflite")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="representative inputs, .npz or .npy")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--name", help="what files and symbols are called (default: as the model's file)")
    parser.add_argument("--samples", type=_positive, default=200, help="calibration samples used (default: 200)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="a text file with the output's classes, one a line")
    parser.add_argument("--arena", help="budget of the tensor arena, such as 48KiB")
    parser.add_argument("--flash", help="budget of the .tflite, such as 96KiB")
    parser.add_argument("--macs", help="budget of multiply-accumulates, such as 3M")
    parser.add_argument("--target", default="cortex-m4", choices=list(targets.TARGETS), metavar="TARGET",
                        help=f"{', '.join(targets.TARGETS)} (default: cortex-m4)")  # fmt: skip
    parser.add_argument("--kernels", default="cmsis-nn", choices=targets.KERNELS, help="default: cmsis-nn")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> None:
    """Run `convert`; errors are those of `console.guarded`."""
    from tfmcu_prune import files
    from tfmcu_prune.firmware.names import identifier
    from tfmcu_prune.firmware.sources import file_names, model_files

    budget = Budget(arena=args.arena, flash=args.flash, macs=args.macs)
    name = identifier(args.name if args.name is not None else args.model.stem)
    files.require_free(args.output, file_names(name), force=args.force)
    labels = _labels(args.labels) if args.labels else []
    data, versions = _converted(args)
    footprint = tfmcu_prune.footprint(data, target=args.target, kernels=args.kernels)
    print(footprint)
    footprint.require(budget)
    contents = model_files(data, name, target=args.target, kernels=args.kernels, labels=labels, versions=versions)
    written = files.write_all(args.output, contents, force=args.force)
    print("Written:", *written, sep="\n  ")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, received {text!r}")
    return int(text)


def _labels(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected a text file in UTF-8 with one label a line. Received: {path}: {error}") from error


def _converted(args: argparse.Namespace) -> tuple[bytes, dict[str, str]]:
    """The .tflite, and the versions of what made it."""
    versions = {"tfmcu_prune": tfmcu_prune.__version__}
    if args.model.suffix.lower() == ".tflite":
        return args.model.read_bytes(), versions
    if not args.model.exists():
        raise FileNotFoundError(
            f"No such file: expected a .keras, .h5 or .tflite file or a SavedModel. Received: {args.model}"
        )
    if args.calibration is None:
        raise ValueError("Expected --calibration FILE, a .npz or .npy of representative inputs. Received: none")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that can convert
    print(f"1/2 Reading {args.model}", flush=True)
    import_keras_quietly()
    data = (_saved_model if args.model.is_dir() else _keras)(args.model, args.calibration, args.samples)
    return data, versions | {name: version(name) for name in ("keras", "tensorflow")}


def _keras(path: Path, calibration: Path, samples: int) -> bytes:
    from tfmcu_prune import files

    model = files.load_model(path)
    arrays = files.chosen_arrays(calibration, [tensor.name for tensor in model.inputs], samples)
    _tell(arrays)
    return tfmcu_prune.convert(model, calibration=arrays)


def _saved_model(folder: Path, calibration: Path, samples: int) -> bytes:
    from tfmcu_prune import files
    from tfmcu_prune.converter import saved_model

    if not (folder / "saved_model.pb").exists():
        raise ValueError(f"Expected a SavedModel, a folder with saved_model.pb. Received: {folder}")
    saved = saved_model.load_saved_model(folder)
    arrays = files.chosen_arrays(calibration, [tensor.name for tensor in saved.inputs], samples)
    _tell(arrays)
    return saved_model.convert_saved_model(saved, calibration=arrays)


def _tell(arrays: Sequence[Any]) -> None:
    print(f"2/2 Quantizing it to int8 with {len(arrays[0])} calibration samples", flush=True)
