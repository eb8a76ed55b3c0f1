"""TensorFlow's converter, run on any function, and whether TensorFlow Lite Micro has what came out."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array
from tfmcu_prune.tflm.code_size import code_size
from tfmcu_prune.tflm.schema import read_model


@dataclass(frozen=True)
class Types:
    """What a file computes in: a key of DTYPES, and the types of its inputs and outputs."""

    quantize: str
    input: str
    output: str


DTYPES = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32"), "float": ("float32",)}
"""The types that inputs and outputs may have; the first is the usual one."""


def written(
    run: Callable[..., Any],
    inputs: Sequence[tuple[Any, Any]],
    samples: list[Array],
    types: Types,
    owner: Any = None,
) -> bytes:
    """The converter's file of a function of inputs (shape, type); without samples its ranges are those it holds.

    `owner` has the variables of a function that does not hold them itself.
    """
    import tensorflow as tf

    spec = [tf.TensorSpec((1, *s[1:]), dtype, name=f"input{index:06d}") for index, (s, dtype) in enumerate(inputs)]
    module = tf.Module()
    module.run, module.owner = tf.function(run), owner
    function = module.run.get_concrete_function(*spec)
    names = [tensor.name.split(":")[0] for tensor in function.inputs[: len(spec)]]  # the converter reorders its inputs

    def representative() -> Iterator[dict[str, Array]]:
        for index in range(len(samples[0])):
            yield {name: array[index : index + 1] for name, array in zip(names, samples, strict=True)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if types.quantize != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.as_dtype(types.input)
        converter.inference_output_type = tf.as_dtype(types.output)
        # CMSIS-NN refuses them for int16 activations
        converter._experimental_disable_per_channel_quantization_for_dense_layers = types.quantize == "int16x8"
    if samples:
        converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, _OPERATORS[types.quantize])]
        converter.representative_dataset = representative
    with warnings.catch_warnings(), _quiet():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")  # it makes one itself
        return bytes(converter.convert())


_OPERATORS = {
    "int8": "TFLITE_BUILTINS_INT8",
    "int16x8": "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's chatter off the terminal and out of notebooks (progress bars), unless it fails."""
    import tensorflow as tf

    logger = tf.get_logger()  # tells in notebooks which temporary files it writes
    level = logger.level
    logger.setLevel(max(level, tf.compat.v1.logging.WARN))
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except BaseException:
            caught.seek(0)
            os.write(stderr, caught.read())
            raise
        finally:
            logger.setLevel(level)
            os.dup2(stderr, 2)
            os.close(stderr)


def require_tflm_operators(data: bytes, types: Types) -> None:
    """Raise UnsupportedLayer if TensorFlow Lite Micro cannot run a file, or if a part of it stays in floating point."""
    graph = read_model(data).main
    for operator in graph.operators:
        output = graph.tensors[operator.outputs[0]]
        layer = output.name.split(":")[0]
        if code_size([operator.name], "cortex-m4", "reference")[1]:
            raise UnsupportedLayer(
                f"The layer {layer!r} becomes the operator {operator.name}, which TensorFlow Lite Micro lacks. "
                "Replace the layer by one that becomes another operator."
            )
        if types.quantize != "float" and output.type.startswith("float") and operator.name != "DEQUANTIZE":
            raise UnsupportedLayer(
                f"The layer {layer!r} stays in floating point (operator {operator.name}): the converter has no "
                "integer kernel for it. Replace the layer, for example by a ReLU or a BatchNormalization."
            )
