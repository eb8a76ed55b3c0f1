"""From a SavedModel to a .tflite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfmcu_prune.calibration import calibration_arrays
from tfmcu_prune.converter.writing import Types, require_tflm_operators, written
from tfmcu_prune.tensor_names import INPUT, input_number, number_below
from tfmcu_prune.tflm.compact import compact
from tfmcu_prune.tflm.improve import optimize

_INT8 = Types("int8", "int8", "int8")


@dataclass(frozen=True)
class SavedModel:
    """What is converted of a SavedModel.

    Args:
        loaded: The object that owns the variables.
        signature: The function that is converted.
        inputs: Its inputs by name, shape and dtype.
        outputs: Its outputs, likewise.
    """

    loaded: Any
    signature: Any
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def load_saved_model(folder: Path) -> SavedModel:
    """Read a TensorFlow SavedModel: its signature "serving_default", or the only one.

    A SavedModel has no order of inputs and outputs, so they stand by their names, output_2 before output_10.

    Args:
        folder: As `model.export(folder)` writes it.

    Raises:
        ValueError: Not such a SavedModel, or sizes of an input beside the batch that are not known.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise ValueError(f"TensorFlow cannot load the SavedModel {folder}: {error}") from error
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None or (name != "serving_default" and len(signatures) > 1):
        raise ValueError(
            f"Expected a SavedModel with the signature 'serving_default'. Received: {folder} with "
            f"{', '.join(signatures) or 'none'}. Keras' model.export(folder) writes it."
        )
    specs = signatures[name].structured_input_signature[1]
    for spec in specs.values():
        if spec.shape.rank is None or None in spec.shape[1:]:
            raise ValueError(
                f"The input {spec.name!r} of the SavedModel {folder} has the shape {spec.shape}; expected sizes that "
                "are all known but the batch. Export it with inputs of a full shape."
            )
    return SavedModel(loaded, signatures[name], _tensors(specs), _tensors(signatures[name].structured_outputs))


def _tensors(specs: Mapping[str, Any]) -> list[keras.KerasTensor]:
    return [keras.KerasTensor(tuple(specs[key].shape), specs[key].dtype.name, name=key) for key in _sorted(specs)]


def _sorted(names: Iterable[str]) -> list[str]:
    """The names, sorted by the numbers in them."""
    return sorted(names, key=lambda name: [(text, int(n or 0)) for text, n in re.findall(r"(\D*)(\d*)", name)])


def convert_saved_model(saved: SavedModel, calibration: Any, *, optimize_arena: bool = True) -> bytes:
    """Quantize a SavedModel to int8, with a batch of 1, and return it as a .tflite; see `convert`.

    A SavedModel has no names of layers, so that operators are named as TensorFlow names them.
    """
    samples = calibration_arrays(saved, calibration)
    names = [tensor.name for tensor in saved.inputs]

    def run(*inputs: Any) -> list[Any]:
        results = saved.signature(**dict(zip(names, inputs, strict=True)))
        return [results[tensor.name] for tensor in saved.outputs]

    data = compact(
        written(run, [(t.shape, t.dtype) for t in saved.inputs], samples, _INT8, saved.loaded),
        lambda name: names[input_number(name)] if INPUT.fullmatch(name) else name.split(";")[-1],
        inputs=input_number,
        outputs=lambda name: number_below(name, len(saved.outputs)),
    )
    require_tflm_operators(data, _INT8)
    return optimize(data) if optimize_arena else data
