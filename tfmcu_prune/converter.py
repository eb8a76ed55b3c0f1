"""From a Keras model to a full-integer .tflite; the only module that imports TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rewrites import refuse_masks, rewritten
from tfmcu_prune.rules import Array
from tfmcu_prune.tflm.code_size import code_size
from tfmcu_prune.tflm.compact import compact
from tfmcu_prune.tflm.improve import optimize
from tfmcu_prune.tflm.schema import read_model


def convert(model: keras.Model, calibration: Any, *, optimize_arena: bool = True) -> bytes:
    """Quantize a model to int8 (weights, activations, input and output) and return it as a .tflite.

    Args:
        model: A plain Keras model, for example what `strip` returned.
        calibration: Representative inputs as the model is trained on: an array of shape (samples, ...), or a list or a
            dict of such arrays for a model with several inputs. 100 to 500 samples are usual.
        optimize_arena: Put the operators into the order, and write the memory plan into the file, that need the
            smallest arena, where that saves more than it takes in flash; what the model computes stays the same.

    Returns:
        The .tflite, with a batch of 1, named as the Keras layers, and only operators that TensorFlow Lite Micro has.

    Raises:
        ValueError: An empty calibration set, one of the wrong shape, or one with NaN.
        UnsupportedLayer: A layer that becomes an operator that TensorFlow Lite Micro lacks.
    """
    samples = _calibration_arrays(model.inputs, calibration)
    if keras.backend.backend() != "tensorflow":
        return _convert_elsewhere(model, samples, optimize_arena)
    graph = graphs.read(_for_inference(model))
    data = compact(
        _to_tflite(graph, samples),
        functools.partial(_keras_name, graph),
        inputs=_input_number,
        outputs=functools.partial(_output_number, graph),
    )
    _require_tflm_operators(data)
    return optimize(data) if optimize_arena else data


def _convert_elsewhere(model: keras.Model, samples: list[Array], optimize_arena: bool) -> bytes:
    """Convert in a process whose Keras runs on TensorFlow; this one runs on another backend."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        np.savez(Path(folder, "samples.npz"), *samples)
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, folder, str(int(optimize_arena))],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            check=False,
        )
        error, result = Path(folder, "error.txt"), Path(folder, "model.tflite")
        if error.exists():
            raise UnsupportedLayer(error.read_text())
        if done.returncode or not result.exists():
            raise RuntimeError(f"The conversion in a process of its own failed:\n{done.stderr[-4000:]}")
        return result.read_bytes()


_ELSEWHERE = """
import pathlib, sys
import keras, numpy
import tfmcu_prune
folder = pathlib.Path(sys.argv[1])
model = keras.models.load_model(folder / "model.keras")
with numpy.load(folder / "samples.npz") as samples:
    arrays = [samples[name] for name in samples.files]
calibration = arrays if len(arrays) > 1 else arrays[0]
try:
    data = tfmcu_prune.convert(model, calibration, optimize_arena=sys.argv[2] == "1")
except tfmcu_prune.UnsupportedLayer as error:
    (folder / "error.txt").write_text(str(error))
else:
    (folder / "model.tflite").write_bytes(data)
"""


def _for_inference(model: keras.Model) -> keras.Model:
    """The model as it is converted: in float32, without casts of mixed precision."""
    graph = graphs.read(model)
    changes = {id(call.layer): {"dtype": "float32"} for call in graph.calls if _is_mixed(call.layer)}
    if not changes:
        return model
    made: dict[int, Any] = {}

    def make(call: graphs.Call) -> Any:
        if id(call.layer) not in made:
            made[id(call.layer)] = graphs.copy_layer(call, **changes.get(id(call.layer), {}))
        return made[id(call.layer)]

    copy = graphs.replay(graph, make)
    for call in graph.calls:
        if isinstance(call.layer, keras.Layer):
            made[id(call.layer)].set_weights(call.layer.get_weights())
    return copy


def _is_mixed(layer: Any) -> bool:
    return isinstance(layer, keras.Layer) and layer.compute_dtype != "float32"


def _calibration_arrays(inputs: Sequence[Any], calibration: Any) -> list[Array]:
    """One array an input of a model, in their order, checked."""
    names = [tensor.name for tensor in inputs]
    if isinstance(calibration, Mapping):
        if sorted(calibration) != sorted(names):
            raise ValueError(f"Expected calibration arrays named {names}. Received: {sorted(calibration)}.")
        calibration = [calibration[name] for name in names]
    elif isinstance(calibration, Sequence) and len(names) > 1:
        if len(calibration) != len(names):
            raise ValueError(f"Expected {len(names)} calibration arrays, for {names}. Received: {len(calibration)}.")
    elif not (isinstance(calibration, Sequence) and len(calibration) == 1 and np.ndim(calibration[0]) > 1):
        calibration = [calibration]
    arrays = [np.asarray(array) for array in calibration]
    for tensor, array in zip(inputs, arrays, strict=True):
        _check_calibration(tensor, array)
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"Expected as many samples for every input. Received: {[len(array) for array in arrays]}.")
    return [array.astype(tensor.dtype) for tensor, array in zip(inputs, arrays, strict=True)]


def _check_calibration(tensor: Any, array: Array) -> None:
    expected = f"(samples, {', '.join(str(size) for size in tensor.shape[1:])})"
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"The calibration set is empty. Expected an array of shape {expected}, for example x_train[:200]. "
            f"Received: shape {array.shape}."
        )
    if array.shape[1:] != tuple(tensor.shape[1:]):
        raise ValueError(
            f"The calibration set does not fit the input {tensor.name!r}. Expected shape {expected}. "
            f"Received: {array.shape}."
        )
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(f"Expected calibration numbers. Received: an array of {array.dtype}.")
    if not np.isfinite(array).all():
        raise ValueError("The calibration set has NaN or infinite values; ranges of activations cannot be found.")


@dataclass(frozen=True)
class SavedModel:
    """What is converted of a SavedModel.

    Args:
        loaded: The object that owns the variables.
        signature: The function that is converted.
        inputs: Its inputs by name, shape and dtype.
        outputs: Names of its outputs.
    """

    loaded: Any
    signature: Any
    inputs: list[keras.KerasTensor]
    outputs: list[str]


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
    inputs = [keras.KerasTensor(tuple(specs[key].shape), specs[key].dtype.name, name=key) for key in _sorted(specs)]
    return SavedModel(loaded, signatures[name], inputs, _sorted(signatures[name].structured_outputs))


def _sorted(names: Iterable[str]) -> list[str]:
    """The names, sorted by the numbers in them."""
    return sorted(names, key=lambda name: [(text, int(n or 0)) for text, n in re.findall(r"(\D*)(\d*)", name)])


def convert_saved_model(saved: SavedModel, calibration: Any, *, optimize_arena: bool = True) -> bytes:
    """Quantize a SavedModel to int8, with a batch of 1, and return it as a .tflite; see `convert`.

    A SavedModel has no names of layers, so that operators are named as TensorFlow names them.
    """
    import tensorflow as tf

    samples = _calibration_arrays(saved.inputs, calibration)
    names = [tensor.name for tensor in saved.inputs]

    def run(*inputs: Any) -> list[Any]:
        results = saved.signature(**dict(zip(names, inputs, strict=True)))
        return [results[name] for name in saved.outputs]

    specs = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name=f"input{i:06d}") for i, t in enumerate(saved.inputs)]
    module = tf.Module()
    module.owner, module.run = saved.loaded, tf.function(run)
    data = compact(
        _quantized(module.run, specs, module, samples),
        lambda name: names[_input_number(name)] if _INPUT.fullmatch(name) else name.split(";")[-1],
        inputs=_input_number,
        outputs=lambda name: _number_below(name, len(saved.outputs)),
    )
    _require_tflm_operators(data)
    return optimize(data) if optimize_arena else data


def _to_tflite(graph: graphs.Graph, samples: list[Array]) -> bytes:
    import tensorflow as tf

    layers = {id(call.layer): call.layer for call in graph.calls if isinstance(call.layer, keras.Layer)}
    refuse_masks(graph)
    weights = [(variable, variable.numpy()) for layer in layers.values() for variable in layer.variables]

    functions = [_instead(call.layer) for call in graph.calls]

    def run(*inputs: Any) -> list[Any]:
        tensors = dict(zip(graph.input_layers, inputs, strict=True))
        with keras.StatelessScope(state_mapping=weights):  # as constants
            for index, call in enumerate(graph.calls):
                with tf.name_scope(f"call{index:06d}"):  # the converter sorts by names: digits, and "input" behind
                    graphs.run_call(call, tensors, functions[index])
        return [tensors[id] for id in graph.output_ids()]

    inputs = enumerate(graph.input_layers.values())
    specs = [tf.TensorSpec((1, *t.batch_shape[1:]), t.dtype, name=f"input{index:06d}") for index, t in inputs]
    module = tf.Module()
    module.run = tf.function(run)
    try:
        return _quantized(module.run, specs, module, samples)
    except Exception as error:
        refused = _refused(graph, str(error))
        if refused is None:
            raise
    raise refused


def _quantized(run: Any, specs: list[Any], module: Any, samples: list[Array]) -> bytes:
    """Convert a tf.function of the inputs in `specs`; `module` owns it and its variables."""
    import tensorflow as tf

    function = run.get_concrete_function(*specs)
    names = [tensor.name.split(":")[0] for tensor in function.inputs[: len(specs)]]  # the converter reorders its inputs

    def representative() -> Iterator[dict[str, Array]]:
        for index in range(len(samples[0])):
            yield {name: array[index : index + 1] for name, array in zip(names, samples, strict=True)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings(), _quiet():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")  # it makes one itself
        return bytes(converter.convert())


def _refused(graph: graphs.Graph, message: str) -> UnsupportedLayer | None:
    """What the converter says of operations that TFLite lacks, with the names of the layers."""
    operations = dict.fromkeys(re.findall(r"'tf\.(\w+)' op is neither", message))
    if not operations:
        return None
    kinds = ", ".join(operations)
    close = {type(call.layer).__name__: call.name for call in graph.calls}
    named = [name for kind, name in close.items() if any(part.lower() in kind.lower() for part in _words(operations))]
    where = f" (look at {', '.join(named)})" if named else ""
    return UnsupportedLayer(
        f"The model {graph.name!r} needs the TensorFlow operations {kinds}, which TensorFlow Lite lacks{where}. "
        "Replace the layers by ones of one or two dimensions that become other operators."
    )


def _words(operations: dict[str, None]) -> list[str]:
    return [word for name in operations for word in (name, name.replace("Avg", "Average"), name[:7])]


def _instead(layer: Any) -> Any:
    """What is converted in place of a layer, as a function of its inputs; `None` for the layer itself.

    An Embedding goes without what Keras does for negative indices.
    """
    import tensorflow as tf

    if type(layer) is keras.layers.Embedding:
        return lambda x: tf.gather(layer.embeddings, x)
    return rewritten(layer)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's chatter off the terminal and out of notebooks (progress bars), unless it fails."""
    import tensorflow as tf

    logger = tf.get_logger()  # tells in notebooks which temporary files it writes
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
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


def _keras_name(graph: graphs.Graph, name: str) -> str:
    """The Keras layer behind a tensor's name in the converted graph: of fused layers the first one."""
    calls = [int(index) for index in re.findall(r"(?:^|[/;])call(\d+)/", name)]
    if calls:
        return graph.calls[min(calls)].name
    if _OUTPUT.fullmatch(name):
        return _output_names(graph)[_output_number(graph, name)]
    return list(graph.input_layers.values())[_input_number(name)].name if _INPUT.fullmatch(name) else name


_INPUT = re.compile(r"serving_default_input(\d+):\d+")
_OUTPUT = re.compile(r"(?:Stateful)?PartitionedCall:(\d+)")


def _input_number(name: str) -> int:
    """The place of an input by its tensor's name in the converter's file."""
    return int(_matched(_INPUT, name))


def _output_number(graph: graphs.Graph, name: str) -> int:
    """The place of an output by its tensor's name; the converter makes names unique by more digits behind."""
    return _number_below(name, len(graph.output_ids()))


def _number_below(name: str, count: int) -> int:
    digits = _matched(_OUTPUT, name)
    found = [int(digits[:end]) for end in range(1, len(digits) + 1) if str(int(digits[:end])) == digits[:end]]
    return max(number for number in found if number < count)


def _matched(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.fullmatch(name)
    if found is None:
        raise RuntimeError(
            f"The converter of TensorFlow names an input or output {name!r}, which is new to this package, so their "
            "order is not known. TensorFlow 2.21 is known to work; please report this."
        )
    return found[1]


def _output_names(graph: graphs.Graph) -> list[str]:
    makers = {id: layer.name for id, layer in graph.input_layers.items()}
    makers.update((id, call.name) for call in graph.calls for id in call.outputs)
    return [makers[id] for id in graph.output_ids()]


def _require_tflm_operators(data: bytes) -> None:
    graph = read_model(data).main
    for operator in graph.operators:
        output = graph.tensors[operator.outputs[0]]
        layer = output.name.split(":")[0]
        if code_size([operator.name], "cortex-m4", "reference")[1]:
            raise UnsupportedLayer(
                f"The layer {layer!r} becomes the operator {operator.name}, which TensorFlow Lite Micro lacks. "
                "Replace the layer by one that becomes another operator."
            )
        if output.type.startswith("float") and operator.name != "DEQUANTIZE":
            raise UnsupportedLayer(
                f"The layer {layer!r} stays in floating point (operator {operator.name}): the converter has no int8 "
                "kernel for it. Replace the layer, for example by a ReLU or a BatchNormalization."
            )
