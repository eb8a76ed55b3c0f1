"""Changes of a trained network that are said to make its int8 file better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.datasets import Dataset

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def estimated_anew(model: keras.Model, data: Dataset) -> keras.Model:
    """A copy whose batch statistics are those of up to 2,000 training samples."""
    copy = copy_of(model)
    norms = [layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for number in range(min(len(data.x_train), 2000) // 100):
        for layer in norms:
            layer.momentum = number / (number + 1)  # the mean of all batches
        copy(data.x_train[100 * number : 100 * number + 100], training=True)
    return copy


def equalized(model: keras.Model, data: Dataset) -> keras.Model | None:
    """A copy in which the channels between a batch normalization and a depthwise convolution reach equally far.

    Only across a ReLU without a bound, which scaling passes through: y = W2 relu(W1 x) = (W2 / s) relu(s W1 x). Source:
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), eq. 7,
    with the ranges that the activations have on samples in place of those of the first kernel. `None` where there is
    no such place.
    """
    copy = copy_of(model)
    chains = list(_chains(graphs.read(copy)))
    for norm, relu, reader in chains:
        reach = keras.Model(copy.inputs, copy.get_layer(relu.name).output)
        values = reach.predict(data.x_train[:500], verbose=0).max((0, 1, 2))
        scale = np.where(values > 0, np.sqrt(values.max() / np.maximum(values, 1e-6)), 1).clip(1, 16)
        norm.layer.gamma.assign(norm.layer.gamma * scale)
        norm.layer.beta.assign(norm.layer.beta * scale)
        kernel = reader.layer.kernel
        kernel.assign(kernel / scale.reshape(1, 1, -1, 1))
    return copy if chains else None


def _chains(graph: graphs.Graph) -> Iterator[tuple[Any, Any, Any]]:
    """Batch normalization, unbounded ReLU and the (depthwise) convolution that alone reads it."""
    makers = {key: call for call in graph.calls for key in call.outputs}
    for relu in graph.calls:
        if _is_unbounded_relu(relu.layer):
            norm = makers.get(relu.inputs[0])
            readers = [call for call in graph.calls if relu.outputs[0] in call.inputs]
            alone = norm is not None and len(readers) == 1
            normal = alone and isinstance(norm.layer, keras.layers.BatchNormalization)
            if normal and isinstance(readers[0].layer, _CONVOLUTIONS):
                yield norm, relu, readers[0]


def _is_unbounded_relu(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return layer.activation is keras.activations.relu
    return isinstance(layer, keras.layers.ReLU) and layer.max_value is None


def bias_corrected(model: keras.Model, data: Dataset) -> keras.Model:
    """A copy whose biases take off what int8 kernels add to each channel on average.

    Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.2, with the mean of the inputs measured on samples.
    """
    copy = copy_of(model)
    graph = graphs.read(copy)
    readers = {key: call for call in graph.calls for key in call.inputs}
    for call in graph.calls:
        if not isinstance(call.layer, (*_CONVOLUTIONS, keras.layers.Dense)):
            continue
        after = readers.get(call.outputs[0])
        norm = after.layer if after is not None and isinstance(after.layer, keras.layers.BatchNormalization) else None
        values = keras.Model(copy.inputs, call.layer.input).predict(data.x_train[:500], verbose=0)
        means = values.mean(tuple(range(values.ndim - 1)))
        depthwise = isinstance(call.layer, keras.layers.DepthwiseConv2D)
        error = _rounding(keras.ops.convert_to_numpy(call.layer.kernel), depthwise=depthwise)
        error = error.reshape(-1, *error.shape[-2:]).sum(0)  # over the window
        shift = (means[:, None] * error).ravel() if depthwise else means @ error
        if norm is not None:
            norm.moving_mean.assign(norm.moving_mean + shift)
        elif call.layer.use_bias:
            call.layer.bias.assign(call.layer.bias - shift)
    return copy


def _rounding(kernel: Any, *, depthwise: bool) -> Any:
    """What int8 changes in a kernel: one scale for each channel that comes out."""
    kept = (-2, -1) if depthwise else (-1,)
    axes = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in kept)
    step = np.maximum(np.abs(kernel).max(axes, keepdims=True) / 127, 1e-12)
    return np.round(kernel / step) * step - kernel


def copy_of(model: keras.Model) -> keras.Model:
    """A network like `model` with its weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
