"""One TensorFlow function for each of many operators, as float and as int8 models of a few bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

SHAPE = (1, 4, 4, 4)
_WEIGHTS = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype("float32"))

OPERATORS: dict[str, Callable[[Any], Any]] = {
    "gather": lambda x: tf.gather(x, [0, 2], axis=1),
    "argmax": lambda x: tf.cast(tf.argmax(x, axis=-1, output_type=tf.int32), tf.float32),
    "cumsum": lambda x: tf.cumsum(x, axis=1),
    "d2s": lambda x: tf.nn.depth_to_space(x, 2),
    "s2d": lambda x: tf.nn.space_to_depth(x, 2),
    "l2n": lambda x: tf.math.l2_normalize(x, axis=-1),
    "logsm": lambda x: tf.nn.log_softmax(x),
    "elu": lambda x: tf.nn.elu(x),
    "select": lambda x: tf.where(x > 0.0, x, x * 2.0),
    "sqd": lambda x: tf.math.squared_difference(x, x + 1.0),
    "rmin": lambda x: tf.reduce_min(x, axis=1),
    "ss": lambda x: x[:, ::2, 1:, :],
    "pack": lambda x: tf.stack(tf.unstack(x, axis=1), axis=1),
    "splitv": lambda x: tf.concat(tf.split(x, [1, 3], axis=1)[::-1], 1),
    "padv2": lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=3.0),
    "mirror": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 0], [0, 0]], mode="REFLECT"),
    "div": lambda x: x / (x + 3.0),
    "exp": lambda x: tf.exp(x) + tf.math.log(x + 9.0) + tf.sin(x) + tf.cos(x) + tf.sqrt(x + 9.0),
    "round": lambda x: tf.round(x) + tf.floor(x) + tf.math.ceil(x),
    "fdiv": lambda x: tf.math.floordiv(x, 2.0) + tf.math.floormod(x, 2.0),
    "cmp": lambda x: tf.cast(tf.logical_and(x > 0.0, tf.logical_or(x < 2.0, tf.logical_not(x >= 1.0))), tf.float32),
    "rev": lambda x: tf.reverse(x, [1]),
    "addn": lambda x: tf.add_n([x, x * 2.0, x * 3.0]),
    "s2b": lambda x: tf.batch_to_space(tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), [2, 2], [[0, 0], [0, 0]]),
    "prelu": lambda x: tf.maximum(x, 0.0) + tf.minimum(x, 0.0) * 0.3,
    "bcast": lambda x: tf.broadcast_to(x[:, :1], [1, 4, 4, 4]),
    "exdims": lambda x: tf.squeeze(tf.expand_dims(x, 1), 1),
    "gnd": lambda x: tf.gather_nd(x, [[0, 1], [0, 2]]),
    "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 1.0),
    "matmul": lambda x: tf.matmul(x, x, transpose_a=True),
    "tconv": lambda x: tf.nn.conv2d_transpose(x, _WEIGHTS, [1, 12, 12, 3], 3),
    "rnn2": lambda x: tf.image.resize(x, (7, 9), method="nearest")[:, :5],
    "neg": lambda x: -x + tf.zeros_like(x),
    "dus": lambda x: tf.tensor_scatter_nd_update(x, [[0]], x[:1]),
    "sum": lambda x: tf.reduce_sum(x, [1, 2], keepdims=True) + tf.reduce_mean(x, [1, 2], keepdims=True),
    "leaky": lambda x: tf.nn.leaky_relu(tf.nn.relu6(x) + tf.nn.relu(x)),
}


def convert(name: str, quantized: bool) -> bytes:
    """Convert one of the functions."""
    concrete = tf.function(OPERATORS[name]).get_concrete_function(tf.TensorSpec(SHAPE))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if quantized:
        samples = [[np.random.default_rng(i).normal(size=SHAPE).astype("float32")] for i in range(4)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()
