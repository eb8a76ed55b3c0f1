"""A faster BatchNormalization of TensorFlow for mixed_bfloat16 on a CPU."""

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
    """Compute BatchNormalization of bfloat16 by one kernel within; nothing changes on other backends than TensorFlow.

    Keras casts to float32 and computes it in many steps, each of which goes through the memory (Keras 3.15). The moving
    variance differs by n / (n - 1), with n values a channel in a batch.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    with mock.patch.object(BatchNormalization, "call", _call):
        yield


def _call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    if self.compute_dtype != "bfloat16" or len(inputs.shape) != 4 or self.axis not in (-1, 3) or mask is not None:
        return _plain(self, inputs, training=training, mask=mask)
    moving = (self.moving_mean, self.moving_variance)
    if not (training and self.trainable):
        return _normalized(self, inputs, *moving)[0]
    outputs, *batch = _normalized(self, inputs)
    for old, new in zip(moving, batch, strict=True):
        old.assign(old * self.momentum + new * (1 - self.momentum))
    return outputs


_plain = BatchNormalization.call


def _normalized(layer: Any, inputs: Any, *statistics: Any) -> tuple[Any, Any, Any]:
    """Return the outputs, and mean and variance: those given, or of the batch, in float32, of shape (channels,)."""
    import tensorflow as tf

    count = inputs.shape[-1]
    scale = layer.gamma if layer.scale else tf.ones(count)
    offset = layer.beta if layer.center else tf.zeros(count)
    more = [0, -count % BLOCK]
    vectors = [tf.pad(tf.convert_to_tensor(vector), [more]) for vector in (scale, offset, *statistics)]
    padded = tf.pad(inputs, [[0, 0], [0, 0], [0, 0], more]) if more[1] else inputs
    outputs, *found = tf.compat.v1.nn.fused_batch_norm(
        padded, *vectors, epsilon=layer.epsilon, is_training=not statistics
    )
    return outputs[..., :count], *(vector[:count] for vector in found)
