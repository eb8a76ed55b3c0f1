"""From a Keras model to a .tflite; this package alone imports TensorFlow."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Literal

import keras
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.budget import Budget
from tfmcu_prune.calibration import calibration_arrays
from tfmcu_prune.converter.writing import DTYPES, Types, require_tflm_operators, written
from tfmcu_prune.elsewhere import convert_elsewhere
from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rewrites import refuse_masks, rewritten
from tfmcu_prune.rules import Array
from tfmcu_prune.tensor_names import input_number, keras_name, output_number
from tfmcu_prune.tflm.compact import compact
from tfmcu_prune.tflm.edit import add_metadata
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.improve import optimize
from tfmcu_prune.tflm.schema import read_model


def convert(
    model: keras.Model,
    calibration: Any = None,
    *,
    quantize: Literal["int8", "int16x8", "float"] = "int8",
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    optimize_arena: bool = True,
    budget: Budget | None = None,
    labels: Sequence[str] | None = None,
) -> bytes:
    """Convert a model to a .tflite, quantized to integers after its training; weights of kernels channel by channel.

    The same arguments give the same bytes.

    Args:
        model: A plain Keras model, for example what `strip` returned; or what `quantize_aware` returned, trained.
        calibration: Representative inputs, prepared as for training: an array of shape (samples, ...), a list or dict
            of them (by the names of the inputs) for several inputs, or what yields such samples or batches one after
            the other: a tf.data.Dataset, a keras.utils.PyDataset, a generator. Of tuples (x, y) x is taken. At most
            500 samples are used, of arrays 500 spread evenly over the whole, of the others the first 500. 100 to 500
            are usual. Not used with `quantize="float"`, nor with a model that has learned its ranges.
        quantize: "int8", or "int16x8" (int16 activations, int8 weights: less loss, twice the arena), or "float".
        input_dtype: Type of the floating-point inputs in the file: "int8", "uint8" or "float32" for int8, "int16" or
            "float32" for int16x8. By default the first. Inputs of integers (of an Embedding) keep their type.
        output_dtype: The same for the outputs.
        optimize_arena: Put the operators into the order, and write the memory plan into the file, that need the
            smallest arena, where that saves more than it takes in flash; what the model computes stays the same.
        budget: What the file may cost on a Cortex-M4 with CMSIS-NN. A memory plan that would take the flash over it
            is left out.
        labels: Names of the classes. They are stored in the file as the metadata entry "labels", UTF-8, one a line, and
            count as flash.

    Returns:
        The .tflite, with a batch of 1, named as the Keras layers, and only operators that TensorFlow Lite Micro has.

    Raises:
        ValueError: A calibration set that is empty, of the wrong shape, or has NaN; types that do not go together;
            labels that are not as many as the classes.
        UnsupportedLayer: A layer that becomes an operator that TensorFlow Lite Micro lacks.
        BudgetError: The file does not fit `budget`.
    """
    types = _types(quantize, input_dtype, output_dtype)
    names = _label_lines(model, labels)
    aware = graphs.is_tf_keras(model)
    samples = [] if aware or quantize == "float" else calibration_arrays(model, calibration)
    if aware:
        data = _converted_aware(model, types)
    elif keras.backend.backend() != "tensorflow":
        options = {"quantize": types.quantize, "input_dtype": types.input, "output_dtype": types.output}
        data = convert_elsewhere(model, samples, {**options, "optimize_arena": False})
    else:
        data = _converted(graphs.read(_for_inference(model)), samples, types)
    _warn_of_constants(data)
    if names is not None:
        data = add_metadata(data, "labels", names)
    data = optimize(data, budget=budget) if optimize_arena else data
    if budget is not None:
        footprint(data).require(budget)
    return data


def _types(quantize: str, input_dtype: str | None, output_dtype: str | None) -> Types:
    if quantize not in DTYPES:
        raise ValueError(f"Expected quantize to be one of {', '.join(DTYPES)}. Received: quantize={quantize!r}")
    allowed = DTYPES[quantize]
    for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
        if dtype is not None and dtype not in allowed:
            raise ValueError(
                f"Expected {name} to be one of {', '.join(allowed)} with quantize={quantize!r}. "
                f"Received: {name}={dtype!r}"
            )
    return Types(quantize, input_dtype or allowed[0], output_dtype or allowed[0])


def _label_lines(model: keras.Model, labels: Sequence[str] | None) -> bytes | None:
    if labels is None:
        return None
    classes = [output.shape[-1] for output in model.outputs]
    if isinstance(labels, str) or not all(isinstance(label, str) and "\n" not in label for label in labels):
        raise ValueError(f"Expected labels to be a list of strings without line breaks. Received: {labels!r}")
    if len(labels) not in classes:
        raise ValueError(f"Expected {' or '.join(map(str, classes))} labels, one a class. Received: {len(labels)}")
    return "\n".join(labels).encode()


def _converted(graph: graphs.Graph, samples: list[Array], types: Types) -> bytes:
    data = compact(
        _to_tflite(graph, samples, types),
        functools.partial(keras_name, graph),
        inputs=input_number,
        outputs=functools.partial(output_number, graph),
    )
    require_tflm_operators(data, types)
    return data


def _converted_aware(model: Any, types: Types) -> bytes:
    """The file of a tf_keras model with its ranges learned, named as the Keras model that it came from."""
    if types.quantize != "int8":
        raise ValueError(
            f'A quantization-aware model has learned the ranges of int8: expected quantize="int8". '
            f"Received: quantize={types.quantize!r}"
        )
    layers = [layer.name for layer in model.layers]
    if not any(name.startswith(_AWARE) for name in layers):
        raise ValueError(
            f"Expected a Keras 3 model, or what quantize_aware returned. Received: the tf_keras model {model.name!r}, "
            "which has learned no ranges; build it with `import keras`."
        )

    def run(x: Any) -> Any:
        return model(x, training=False)

    raw = written(run, [(x.shape, x.dtype) for x in model.inputs], [], types)
    main = read_model(raw).main
    names = {main.tensors[main.inputs[0]].name: model.input_names[0]}
    names[main.tensors[main.outputs[0]].name] = model.output_names[0].removeprefix(_AWARE)

    def rename(name: str) -> str:
        found = [layer for layer in layers if f"/{layer}/" in name]
        return names.get(name) or (found[0].removeprefix(_AWARE) if found else name)

    data = compact(raw, rename)
    require_tflm_operators(data, types)
    return data


_AWARE = "quant_"  # what tensorflow-model-optimization puts before the names of layers


def _warn_of_constants(data: bytes) -> None:
    names = dict.fromkeys(tensor.name for tensor in read_model(data).main.tensors if tensor.flat)
    if names:
        logging.warning(
            "tfmcu_prune: the output of %s was the same number for all of the calibration set, so the file has no "
            "range for it: it will return that number for every input, and TensorFlow Lite Micro may refuse it. "
            "Calibrate with samples that differ, prepared as for training; if they do, train these layers anew.",
            ", ".join(names),
        )


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


def _to_tflite(graph: graphs.Graph, samples: list[Array], types: Types) -> bytes:
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
        return [tensors[key] for key in graph.output_ids()]

    try:
        return written(run, [(x.batch_shape, x.dtype) for x in graph.input_layers.values()], samples, types)
    except Exception as error:
        refused = _refused(graph, str(error))
        if refused is None:
            raise
    raise refused


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
