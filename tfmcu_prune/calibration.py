"""Representative inputs for a conversion: taken from arrays, data sets or generators, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.rules import Array

LIMIT = 500  # samples; the ranges of activations hardly change beyond
_LOOK = 32  # samples that are held against the batch statistics
_FAR = 10.0  # standard deviations, or times the standard deviation


def calibration_arrays(model: Any, calibration: Any) -> list[Array]:
    """Return `sample_arrays`, and log a warning about what would be wrong with a file of these ranges.

    The warning says what becomes of the file for one sample only, for whole numbers where the model takes others, and
    for another range than that of the training data, by the statistics that batch normalization holds.

    Args:
        model: What takes them, with `inputs` and `outputs`; the warnings about ranges need a Keras model.
        calibration: As in `convert`.

    Raises:
        ValueError: No samples, not the model's shapes, no numbers, or NaN and infinite values.
    """
    arrays = sample_arrays(model, calibration)
    _warn(model, arrays, _dtypes(model))
    return [array.astype(dtype) for array, dtype in zip(arrays, _dtypes(model), strict=True)]


def sample_arrays(model: Any, calibration: Any) -> list[Array]:
    """Return at most LIMIT samples as one array an input, in the order of `model.inputs`, in their own dtypes.

    Of arrays they are spread evenly over the whole, of data sets and generators they are the first ones.

    Args:
        model: What takes them, with `inputs` and `outputs`.
        calibration: As in `convert`.

    Raises:
        ValueError: No samples, not the model's shapes, no numbers, or NaN and infinite values.
    """
    if calibration is None:
        raise ValueError(
            "Expected calibration=, inputs as those of the training, such as x_train[:200]. Received: None"
        )
    if _is_stream(calibration):
        arrays = _streamed(model, calibration)
    else:
        arrays = _matched(model, calibration)
        chosen = np.linspace(0, len(arrays[0]) - 1, min(len(arrays[0]), LIMIT)).astype(int)
        arrays = [array[chosen] for array in arrays]
    for tensor, array in zip(model.inputs, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(
                f"The calibration set of the input {tensor.name!r} has NaN or infinite values, so the ranges of "
                f"activations cannot be found. Received: {np.count_nonzero(~np.isfinite(array)):,} of them; leave out "
                "or repair their samples."
            )
    return arrays


def _dtypes(model: Any) -> list[str]:
    return [keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs]


def _is_stream(calibration: Any) -> bool:
    """Whether batches come one after the other: a data set, a generator."""
    arrays = isinstance(calibration, (Mapping, Sequence, np.ndarray)) or keras.ops.is_tensor(calibration)
    return isinstance(calibration, (keras.utils.PyDataset, Iterable)) and not arrays


def _streamed(model: Any, stream: Any) -> list[Array]:
    columns: list[list[Array]] = [[] for _ in model.inputs]
    count = 0
    for batch in _batches(stream):
        x = batch[0] if isinstance(batch, tuple) and batch else batch  # (x, y) or (x, y, weights), as in fit
        arrays = _matched(model, x, single=True)
        for column, array in zip(columns, arrays, strict=True):
            column.append(array[: LIMIT - count])
        count += len(arrays[0])
        if count >= LIMIT:
            break
    if not count:
        raise ValueError(f"The calibration set is empty. Expected batches of samples. Received: {type(stream)}.")
    return [np.concatenate(column) for column in columns]


def _batches(stream: Any) -> Iterator[Any]:
    if isinstance(stream, keras.utils.PyDataset):
        return (stream[index] for index in range(len(stream)))
    return iter(stream)


def _matched(model: Any, x: Any, *, single: bool = False) -> list[Array]:
    """One array an input, each of shape (samples, ...); with `single` one sample may come without its batch axis."""
    names = [tensor.name for tensor in model.inputs]
    if isinstance(x, Mapping):
        if sorted(x) != sorted(names):
            raise ValueError(f"Expected calibration arrays named {names}. Received: {sorted(x)}.")
        x = [x[name] for name in names]
    elif isinstance(x, Sequence) and len(names) > 1:
        if len(x) != len(names):
            raise ValueError(f"Expected {len(names)} calibration arrays, for {names}. Received: {len(x)}.")
    elif isinstance(x, tuple):
        raise ValueError(
            f"Expected one calibration array, for {names[0]!r}. Received: a tuple of {len(x)}; of (x, y) pass x."
        )
    elif not (isinstance(x, Sequence) and len(x) == 1 and np.ndim(x[0]) == len(model.inputs[0].shape)):
        x = [x]
    arrays = [np.asarray(array) for array in x]
    if single:
        one = [array.shape == tuple(t.shape[1:]) for t, array in zip(model.inputs, arrays, strict=True)]
        arrays = [array[None] for array in arrays] if all(one) else arrays
    for tensor, array in zip(model.inputs, arrays, strict=True):
        _check(model, tensor, array)
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"Expected as many samples for every input. Received: {[len(array) for array in arrays]}.")
    return arrays


def _check(model: Any, tensor: Any, array: Array) -> None:
    expected = f"(samples, {', '.join(str(size) for size in tensor.shape[1:])})"
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"The calibration set is empty. Expected an array of shape {expected}, for example x_train[:200]. "
            f"Received: shape {array.shape}."
        )
    if array.shape[1:] != tuple(tensor.shape[1:]):
        labels = array.shape[1:] in {(), (1,), *(tuple(output.shape[1:]) for output in model.outputs)}
        hint = " These look like labels: pass the inputs (x), not the labels (y)." if labels else ""
        raise ValueError(
            f"The calibration set does not fit the input {tensor.name!r}. Expected shape {expected}. "
            f"Received: {array.shape}.{hint}"
        )
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(f"Expected calibration numbers. Received: an array of {array.dtype}.")


def _warn(model: Any, arrays: list[Array], types: list[str]) -> None:
    if len(arrays[0]) == 1:
        _tell(
            "The calibration set has one sample. What exceeds the ranges of its activations will be clipped, which "
            "costs accuracy. Expected 100 to 500 samples, of every class."
        )
    if not isinstance(model, keras.Model):
        return
    graph = graphs.read(model)
    found = _against_statistics(graph, [array[:_LOOK] for array in arrays])
    if found:
        _tell(found)
    elif found is None and not _rescales(graph):
        for tensor, array, dtype in zip(model.inputs, arrays, types, strict=True):
            if array.dtype.kind in "iu" and "float" in dtype and np.abs(array.astype(float)).max() > 1:
                _tell(
                    f"The calibration set holds integers from {array.min()} to {array.max()}, and the input "
                    f"{tensor.name!r} takes {dtype}. The file will quantize that range: if the model was trained on "
                    "numbers from 0 to 1, all of them become one or two of the 256 steps. Prepare the samples as for "
                    "training, for example x / 255; pass floats if the model does take such numbers."
                )


def _tell(message: str) -> None:
    logging.warning("tfmcu_prune: %s", message)


def _rescales(graph: graphs.Graph) -> bool:
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(call.layer, kinds) for call in graph.calls if set(call.inputs) & set(graph.input_layers))


def _against_statistics(graph: graphs.Graph, arrays: list[Array]) -> str | None:
    """What is wrong by the statistics of the first batch normalization; "" for nothing, `None` if there are none."""
    first = next((call for call in graph.calls if isinstance(call.layer, keras.layers.BatchNormalization)), None)
    if first is None:
        return None
    layer: Any = first.layer
    mean, variance = (_numpy(value) for value in (layer.moving_mean, layer.moving_variance))
    if not mean.any() and (variance == 1).all():  # never trained
        return None
    tensors: dict[int, Any] = dict(zip(graph.input_layers, map(keras.ops.convert_to_tensor, arrays), strict=True))
    for call in graph.calls[: graph.calls.index(first)]:
        graphs.run_call(call, tensors)
    x = np.moveaxis(_numpy(tensors[first.inputs[0]]), layer.axis, -1).reshape(-1, len(mean))
    alive = variance > layer.epsilon
    if not alive.any():
        return None
    x, mean, deviation = x[:, alive], mean[alive], np.sqrt(variance[alive])
    shift = float(np.median(np.abs(x.mean(0) - mean) / deviation))
    spread = float(np.median(x.std(0) / deviation))
    if shift < _FAR and 1 / _FAR < spread < _FAR:
        return ""
    result = "be clipped" if spread < 1 else "take only a few of the 256 steps"
    return (
        f"The calibration set is unlike the data that the model was trained on: in front of {first.name!r} its "
        f"standard deviation is {spread:.3g} times that of the training and its mean {shift:.3g} standard deviations "
        f"away (expected 0.1 to 10 times, below 10). The int8 ranges will be those of the calibration set, so that "
        f"real inputs would {result}. Prepare the samples as for training, for example x / 255."
    )


def _numpy(value: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")), np.float64)
