"""Run a .tflite file on LiteRT, the interpreter of phones and computers, kernel by kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .samples import dequantized, matched, quantized
from .schema import Tensor, load, read_model


def run(
    data: bytes | str | os.PathLike[str],
    x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray],
    *,
    reference: bool = True,
) -> np.ndarray | list[np.ndarray]:
    """Run samples through a model on LiteRT, one by one, quantized as `tflm.run` does it.

    Args:
        data: The bytes of a .tflite file, or its path.
        x: As in `tflm.run`.
        reference: Use the reference kernels, which are those that TensorFlow Lite Micro was written after; otherwise
            the optimized ones, which are faster.

    Returns:
        As `tflm.run`.

    Raises:
        InvalidModel: The bytes are not a .tflite model.
        ValueError: Inputs of the wrong number or shape, or not finite.
    """
    graph = read_model(load(data)).main
    outputs = [graph.tensors[index] for index in graph.outputs]
    samples = list(activations(data, x, outputs, reference=reference))
    results = [np.stack([sample[i] for sample in samples]) for i in range(len(outputs))]
    return results[0] if len(results) == 1 else results


def activations(
    data: bytes | str | os.PathLike[str],
    x: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray],
    tensors: Sequence[Tensor],
    *,
    reference: bool = True,
) -> Iterator[list[np.ndarray]]:
    """Yield for each sample the real values of some tensors, without the batch axis of 1."""
    raw = load(data)
    graph = read_model(raw).main
    inputs = [graph.tensors[index] for index in graph.inputs]
    feeds = [quantized(tensor, sample) for tensor, sample in zip(inputs, matched(inputs, x), strict=True)]
    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=raw, experimental_op_resolver_type=kernels, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    for number in range(len(feeds[0])):
        interpreter.reset_all_variables()
        for tensor, feed in zip(inputs, feeds, strict=True):
            interpreter.set_tensor(tensor.index, feed[number])
        interpreter.invoke()
        values = [interpreter.get_tensor(tensor.index).reshape(1, *tensor.shape) for tensor in tensors]
        yield [dequantized(tensor, value)[0] for tensor, value in zip(tensors, values, strict=True)]
