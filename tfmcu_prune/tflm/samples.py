"""Samples as a model's inputs take them and its outputs give them: matched, quantized, dequantized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .schema import Tensor


def matched(inputs: list[Tensor], x: Any) -> list[Any]:
    """Return one array for each input: from a sequence in the model's order, a dict by names, or the array itself."""
    names = [tensor.name for tensor in inputs]
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ValueError(
                f"x must have one array for each input of the model. Expected: {names}. Received: {list(x)}"
            )
        arrays = [x[name] for name in names]
    elif isinstance(x, (list, tuple)):
        arrays = list(x)
    else:
        arrays = [x]
    if len(arrays) != len(inputs):
        raise ValueError(
            f"x must have one array for each input of the model. Expected: {len(inputs)} ({names}). "
            f"Received: {len(arrays)}"
        )
    counts = {len(np.asarray(array)) if np.ndim(array) else 0 for array in arrays}
    if len(counts) > 1:
        raise ValueError(f"The arrays of x must have the same number of samples. Received: {sorted(counts)}")
    return arrays


def quantized(tensor: Tensor, x: Any) -> np.ndarray:
    """Return the samples in the model's type, each with the model's shape."""
    array = np.asarray(x)
    sample = tensor.shape[1:] if tensor.shape and tensor.shape[0] == 1 else tensor.shape
    if array.ndim == 0 or array.shape[1:] not in (sample, tensor.shape):
        raise ValueError(
            f"Input {tensor.name!r} must hold samples of shape {sample}, an array of shape {('n', *sample)}. "
            f"Received: shape {array.shape}"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Input {tensor.name!r} must hold numbers. Received: dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"Input {tensor.name!r} must be finite. Received: {np.count_nonzero(~np.isfinite(array))} values that are "
            "NaN or infinite; clean the samples first"
        )
    array = array.reshape(len(array), *tensor.shape)
    dtype = np.dtype(tensor.type)
    if not tensor.quantized or dtype.kind == "f":
        return np.ascontiguousarray(array, dtype)
    limits = np.iinfo(dtype)
    scaled = array.astype(np.float32) / np.float32(tensor.scale)
    whole = np.trunc(scaled)
    away = np.abs(scaled - whole) >= 0.5
    rounded = whole + np.copysign(away, scaled) + np.float32(tensor.zero_point)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def dequantized(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Return what a tensor's values, shape (n, *tensor.shape), stand for, without the batch axis of 1."""
    shape = tensor.shape[1:] if tensor.shape and tensor.shape[0] == 1 else tensor.shape
    values = values.reshape(len(values), *shape)
    if not tensor.quantized or values.dtype.kind == "f":
        return values
    centred = values.astype(np.float32) - np.float32(tensor.zero_point)
    return np.asarray(centred * np.float32(tensor.scale), np.float32)
