"""Quantization-aware training: a Keras 3 model taken across to tf_keras and to tensorflow-model-optimization."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from tfmcu_prune import graph as graphs
from tfmcu_prune.calibration import calibration_arrays
from tfmcu_prune.rules import Array
from tfmcu_prune.tf_keras_layers import lacking, steps_of

_TOLERANCE = 1e-4  # rounding alone made 1.3e-5 of fifty layers, in Keras 3 as in tf_keras, against float64


def quantize_aware(small: keras.Model, calibration: Any = None) -> Any:
    """Return a tf_keras model that computes what `small` does and trains with the rounding of int8.

    The architecture and the weights are taken across to tf_keras (Keras 2), whose outputs are checked to be equal to
    1e-5, and quantized by tensorflow-model-optimization. Layers of one dimension become those of two with a height of
    1; a batch normalization behind anything but a convolution becomes what it is in inference, a factor and an offset
    for each channel.

    Args:
        small: A plain Keras model, for example what `strip` returned. It stays as it is.
        calibration: Samples as in `convert`. The ranges of activations start at what these samples reach, which is for
            a model that is trained; by default at -6 to 6. They move by a thousandth of the way each step, so a short
            training does not find others.

    Returns:
        A `tf_keras.Model`, not compiled. Compile it with names ("adam") or objects of tf_keras, not of Keras 3, and
        train it as usual; a tenth of the learning rate and of the epochs of the training is common. `convert` takes it,
        without calibration, since it has learned the ranges.

    Raises:
        ValueError: Several inputs or outputs.
        ModuleNotFoundError: tf-keras or tensorflow-model-optimization is not installed.
        UnsupportedLayer: A layer that tf_keras or tensorflow-model-optimization lacks.

    Example:
        >>> import tfmcu_prune
        >>> aware = tfmcu_prune.quantize_aware(small, x[:200])  # doctest: +SKIP
        >>> aware.compile("adam", "sparse_categorical_crossentropy")  # doctest: +SKIP
        >>> aware.fit(x, y, epochs=2)  # doctest: +SKIP
        >>> data = tfmcu_prune.convert(aware)  # doctest: +SKIP
    """
    tf_keras, tfmot = _packages()
    graph = graphs.read(small)
    if len(graph.input_layers) != 1 or len(graph.output_ids()) != 1:
        raise ValueError(
            f"Expected a model with one input and one output. Received: {len(graph.input_layers)} and "
            f"{len(graph.output_ids())}. Quantize it after its training: convert(model, calibration)."
        )
    plain = _translated(graph, tf_keras)
    _require_equal(small, plain)
    aware = tfmot.quantization.keras.quantize_model(plain)
    if calibration is not None:
        (samples,) = calibration_arrays(small, calibration)
        _set_ranges(aware, plain, samples)
    return aware


def _packages() -> tuple[Any, Any]:
    try:
        import tf_keras

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it asks distutils for versions
            import tensorflow_model_optimization as tfmot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Quantization-aware training needs the package {error.name!r}: pip install 'tfmcu-prune[qat]'",
            name=error.name,
        ) from error
    return tf_keras, tfmot


def _translated(graph: graphs.Graph, tf_keras: Any) -> Any:
    """The model in tf_keras; what has the shape (steps, channels) has (1, steps, channels) in it."""
    ((key, source),) = graph.input_layers.items()
    inputs = x = tf_keras.Input(source.batch_shape[1:], dtype=source.dtype, name=source.name)
    tensors = {key: tf_keras.layers.Reshape((1, *x.shape[1:]))(x) if len(x.shape) == 3 else x}
    seen: set[int] = set()
    for call in graph.calls:
        if id(call.layer) in seen:
            raise lacking(call, "is called more than once", "give each call a layer of its own")
        seen.add(id(call.layer))
        x = [tensors[key] for key in call.inputs]
        value = x[0] if len(x) == 1 else x
        for kind, config, weights in steps_of(call, graph):
            layer = getattr(tf_keras.layers, kind)(**config)
            value = layer(value)
            if weights:
                layer.set_weights(weights)
        tensors[call.outputs[0]] = value
    (key,) = graph.output_ids()
    output, shape = tensors[key], graph.shapes[key]
    output = tf_keras.layers.Reshape(shape[1:])(output) if len(shape) == 3 else output
    return tf_keras.Model(inputs, output, name=graph.name)


def _set_ranges(aware: Any, plain: Any, samples: Array) -> None:
    """Let the quantizers of outputs start at the ranges that the layers of the float model reach on some samples."""
    layers = {layer.name: layer for layer in plain.layers}
    quantized = [layer for layer in aware.layers if layer.name.removeprefix("quant_") in layers]
    seen = type(plain)(plain.inputs, [layers[layer.name.removeprefix("quant_")].output for layer in quantized])
    values = keras.tree.flatten(seen.predict(samples, batch_size=_BATCH, verbose=0))
    inputs = [layer for layer in aware.layers if layer.name.startswith("quantize_layer")]
    for layer, value in [*zip(quantized, values, strict=True), *((layer, samples) for layer in inputs)]:
        low, high = min(0.0, float(value.min())), max(0.0, float(value.max()))
        for weight in layer.weights:
            name = weight.name.split("/")[-1].split(":")[0]
            if name in _RANGES:
                weight.assign(low if name.endswith("_min") else high)


_RANGES = {f"{of}_{end}" for of in ("output", "post_activation", "quantize_layer") for end in ("min", "max")}
_BATCH = 32


def _require_equal(small: keras.Model, plain: Any) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (4, *small.inputs[0].shape[1:])).astype("float32")
    expected = keras.ops.convert_to_numpy(keras.Model(small.inputs[0], small.outputs[0])(samples, training=False))
    found = np.asarray(plain(samples, training=False))
    error = float(np.abs(expected - found).max() / max(1.0, float(np.abs(expected).max())))
    if not error <= _TOLERANCE:
        raise RuntimeError(
            f"The model {small.name!r} gives other outputs in tf_keras than in Keras 3: expected a difference of at "
            f"most {_TOLERANCE}. Received: {error:.3g}. Please report this with the model."
        )
