"""A faster BatchNormalization of TensorFlow for training in mixed_bfloat16 on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import keras

BatchNormalization = keras.layers.BatchNormalization
BLOCK = 16
"""Channels that the kernel of oneDNN takes at a time; other numbers of them go to one that is many times slower."""


@contextlib.contextmanager
def one_kernel() -> Iterator[None]:
    """Train BatchNormalization of bfloat16 by one kernel within; nothing changes on other backends than TensorFlow.

    Keras casts to float32 and computes it in many steps, each of which goes through the memory (Keras 3.15). The moving
    variance differs by n / (n - 1), with n values a channel in a batch.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    with mock.patch.object(BatchNormalization, "call", _call):
        yield


def _call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    trains = training and self.trainable and mask is None
    if not (trains and self.compute_dtype == "bfloat16" and len(inputs.shape) == 4 and self.axis in (-1, 3)):
        return _plain(self, inputs, training=training, mask=mask)
    outputs, mean, variance = _normalized(self, inputs)
    for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
        moving.assign(moving * self.momentum + new * (1 - self.momentum))
    return outputs


_plain = BatchNormalization.call


def _normalized(layer: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """Return the outputs, and mean and variance of the batch in float32, of shape (channels,)."""
    import tensorflow as tf

    count = inputs.shape[-1]
    more = [0, -count % BLOCK]
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones(count)
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros(count)
    if more[1]:
        inputs = tf.pad(inputs, [[0, 0], [0, 0], [0, 0], more])
        scale, offset = tf.pad(scale, [more]), tf.pad(offset, [more])
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, scale, offset, epsilon=layer.epsilon)
    return outputs[..., :count], mean[:count], variance[:count]
