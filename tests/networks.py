"""Networks and masks to test on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfmcu_prune.channels import Channels


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight, batch statistics included, a value that training could have given it."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(keras.ops.convert_to_numpy(weight)) + rng.normal(0, 0.2, weight.shape)
        weight.assign(np.abs(value) + 0.1 if "variance" in weight.path else value)
    return model


def inputs_for(model: keras.Model, samples: int = 5, seed: int = 0) -> Any:
    """Random inputs, structured as `model` takes them; integers below 10 where it takes integers."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (samples, *tensor.shape[1:])
        arrays.append(rng.integers(0, 10, shape) if "int" in tensor.dtype else rng.random(shape).astype("float32"))
    if not isinstance(model, keras.Sequential) and isinstance(model.input, dict):
        return keras.tree.pack_sequence_as(model.input, arrays)
    return arrays if len(arrays) > 1 else arrays[0]


def outputs_of(model: keras.Model, inputs: Any) -> np.ndarray:
    """All outputs in one vector."""
    outputs = keras.tree.flatten(model(inputs, training=False))
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(output)) for output in outputs])


def random_mask(channels: Channels, seed: int, share: float = 0.6) -> np.ndarray:
    """A mask that leaves at least one channel in each group."""
    rng = np.random.default_rng(seed)
    mask = rng.random(channels.count) < share
    for group in channels.groups:
        if not mask[group.channels].any():
            mask[rng.choice(group.channels)] = True
    return mask


def half_mask(channels: Channels) -> np.ndarray:
    """Every second channel of each group, from its first."""
    mask = np.zeros(channels.count, bool)
    for group in channels.groups:
        mask[group.channels[::2]] = True
    return mask
