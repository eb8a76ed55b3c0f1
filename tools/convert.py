"""Convert a Keras model, gated or plain, to an int8 .tflite for TensorFlow Lite Micro, and tell what it costs.

A gated model (what tfmcu_prune.prunable returned, trained and saved) is stripped first. The calibration file is a
NumPy .npz of representative inputs, prepared as for training: one array a model input, named as the input, or a
single array under any name. With a budget, a model that does not fit is an error, and nothing is written.

Examples:

  python tools/convert.py --model gated.keras --calibration samples.npz --output model.tflite
  python tools/convert.py --model small.keras --calibration samples.npz --output model.tflite \\
      --arena 48KiB --flash 96KiB --macs 3M --report model.json

Exit codes: 0 written, 1 the model does not fit the budget or a flag cannot be read, 2 bad input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from tfmcu_prune.console import guarded, import_keras_quietly

_MODEL = flags.DEFINE_string("model", None, "The model, a .keras file.", required=True)
_CALIBRATION = flags.DEFINE_string("calibration", None, "Representative inputs, a .npz file.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.", required=True)
_REPORT = flags.DEFINE_string("report", None, "A .json file to write all figures to.")
_SAMPLES = flags.DEFINE_integer("samples", 200, "How many of the calibration samples to use.", lower_bound=1)
_ARENA = flags.DEFINE_string("arena", None, "Budget of the tensor arena, for example 48KiB.")
_FLASH = flags.DEFINE_string("flash", None, "Budget of the .tflite file, for example 96KiB.")
_MACS = flags.DEFINE_string("macs", None, "Budget of multiply-accumulates, for example 3M.")


def main(argv: Sequence[str]) -> int:
    return guarded(_run, argv)


def _run(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"Expected flags only, for example --model gated.keras. Received: {' '.join(argv[1:])}")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that can convert
    import_keras_quietly()
    import tfmcu_prune
    from tfmcu_prune import files

    budget = tfmcu_prune.Budget(arena=_ARENA.value, flash=_FLASH.value, macs=_MACS.value)
    arrays = files.read_npz(Path(_CALIBRATION.value))
    model = files.load_model(Path(_MODEL.value))
    data = tfmcu_prune.convert(model, calibration=_inputs(model, arrays, _SAMPLES.value))
    footprint = tfmcu_prune.footprint(data)
    print(footprint)
    footprint.require(budget)
    if _REPORT.value is not None:
        with files.replacing(Path(_REPORT.value)) as temporary:
            temporary.write_text(json.dumps(footprint.to_dict(), indent=2) + "\n")
    with files.replacing(Path(_OUTPUT.value)) as temporary:
        temporary.write_bytes(data)
    print(f"Written: {_OUTPUT.value}")


def _inputs(model: Any, arrays: Mapping[str, Any], samples: int) -> Any:
    """The first samples of the arrays that the model's inputs take."""
    names = [tensor.name for tensor in model.inputs]
    if len(names) == 1 and len(arrays) == 1:
        return next(iter(arrays.values()))[:samples]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{_CALIBRATION.value} lacks {', '.join(missing)}: expected a single array, or one array a model input, "
            f"named {', '.join(names)}. Received: {', '.join(arrays) or 'no array'}"
        )
    return arrays[names[0]][:samples] if len(names) == 1 else {name: arrays[name][:samples] for name in names}


if __name__ == "__main__":
    sys.exit(app.run(main))
