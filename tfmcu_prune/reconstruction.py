"""What a channel meant to its readers is taken over by the channels that stay: least squares on a few samples."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmcu_prune import graph as graphs
from tfmcu_prune.gates import ChannelGates, Gated, gates_of, take_runs
from tfmcu_prune.rules import Array

RIDGE = 0.01  # of the variance of a channel; what the samples do not tell stays as it is
_ROUNDING = 1e-9  # a ridge below this part of the mean square is one of rounding errors
_BATCH = 64
_ROWS = 4096  # positions of a batch that are looked at
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_LINEAR = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, *_TRANSPOSED)


def reconstruct(gated: keras.Model, samples: Sequence[Array], before: Array, after: Array) -> None:
    """Change the kernels of a gated model so that under the mask `after` each layer puts out nearly what it did.

    A kernel W reads the channels x through gates, g under the mask `before` and h under `after`. The rows of W that
    stay become W + A W, and W b, summed over the kernel's places, is added to the bias, where A and b minimize
    || (h x) A + b - (g - h) x ||^2 over the samples and positions, plus a ridge that holds A near zero. Without a bias
    b is what the batch normalization behind the layer takes away. Where a batch normalization alone reads the
    layer, each output's kernel keeps the length that it has in the channels that were in and stay, and the
    statistics are scaled with it, so that the normalization puts out the same: kernels would grow with each change
    of the mask, and the longer they are the slower they learn. One pass of the samples through the model as it is,
    so that all layers change at once; it moves the statistics of batch normalizations as a step of training does.
    Layers that are not linear in a channel's values at one place (recurrent ones, attention), are called several times
    or are not trainable stay as they are.

    Args:
        gated: What `prunable` returned; its mask is not changed.
        samples: Inputs of the model, an array of shape (samples, ...) for each in the order of `gated.inputs`.
        before: bool, shape (channels,): the mask that the kernels are made for.
        after: bool, shape (channels,): the mask that they are to serve.

    Source: the second of the two steps of He et al. 2017 (arXiv 1707.06168), the least squares; theirs fit each output
        over all places of the kernel, these exchange channels place by place, so that one solution serves all outputs.
        Why the length: van Laarhoven 2017 (arXiv 1706.05350), the effective learning rate.
    """
    layer = gates_of(gated)
    scale = 1 + ops.convert_to_numpy(layer.offset)
    gates = [ops.convert_to_tensor(np.where(mask, scale, 0).astype("float32")) for mask in (before, after)]
    graph = graphs.read(gated)
    times = collections.Counter(id(call.layer) for call in graph.calls)
    readers = [call for call in graph.calls if times[id(call.layer)] == 1 and _is_linear(call)]
    sums = {id(call): _Sums(call, _normalization(call, graph, times), len(samples[0]), *gates) for call in readers}
    sums = {key: value for key, value in sums.items() if len(value.lost)}
    for start in range(0, len(samples[0]), _BATCH):
        batch = [ops.convert_to_tensor(array[start : start + _BATCH], dtype=tensor.dtype)
                 for array, tensor in zip(samples, gated.inputs, strict=True)]  # fmt: skip
        _run(graph, dict(zip(graph.input_layers, batch, strict=True)), gates[0], sums)
    for value in sums.values():
        value.solve()


def _is_linear(call: graphs.Call) -> bool:
    """Whether the kernel takes the channels of the only input, all of them, at each position alike."""
    if not isinstance(call.layer, Gated) or not isinstance(call.layer.layer, _LINEAR) or not call.layer.trainable:
        return False
    return isinstance(call.layer.layer.kernel, keras.Variable) and getattr(call.layer.layer, "groups", 1) == 1


def _normalization(call: graphs.Call, graph: graphs.Graph, times: Mapping[int, int]) -> Any:
    """The batch normalization that undoes the scale of each output of a gated layer; `None` if there is none."""
    made: Any = call.layer
    reader = graph.only_reader(call.outputs[0])
    if reader is None or times[id(reader.layer)] != 1 or made.layer.activation is not keras.activations.linear:
        return None
    layer: Any = reader.layer
    axes = (-1, len(call.shapes[0]) - 1)
    return layer if isinstance(layer, keras.layers.BatchNormalization) and layer.axis in axes else None


class _Sums:
    """The least squares of one reader: the channels that stay, x, and what is lost of others, y.

    With many channels and few rows, as behind a Flatten, they are kept as they are, else as sums of products.
    """

    def __init__(self, call: graphs.Call, normalization: Any, samples: int, old: Any, new: Any) -> None:
        self.layer: Any = call.layer.layer
        self.normalization = normalization
        self.axis, runs = call.layer.reads["kernel"]
        before, after = (ops.convert_to_numpy(take_runs(gates, runs)) for gates in (old, new))
        self.kept, self.after = np.flatnonzero(after), after[after != 0]
        self.stayed = np.flatnonzero((before != 0) & (after != 0))
        self.lost = np.flatnonzero(before - after)
        self.gone = (before - after)[self.lost]
        self.samples, self.is_finite = samples, True
        self.rows: list[tuple[Array, Array]] = []
        self.products: list[Array] = []

    def add(self, inputs: Any) -> None:
        """Add a batch of the layer's inputs, shape (batch, ..., channels)."""
        rows = ops.convert_to_numpy(ops.cast(inputs, "float32")).reshape(-1, inputs.shape[-1]).astype(np.float64)
        each = len(rows) // len(inputs)
        if len(rows) > _ROWS:
            rows = rows[np.random.default_rng(0).choice(len(rows), _ROWS, replace=False)]
        self.is_finite &= bool(np.isfinite(rows).all())
        x, y = rows[:, self.kept] * self.after, rows[:, self.lost] * self.gone
        if _is_short(each * self.samples, len(self.kept)):
            self.rows.append((x, y))
            return
        x = np.append(x, np.ones((len(rows), 1)), axis=1)
        products = [x.T @ x, x.T @ y]
        self.products = [a + b for a, b in zip(self.products, products, strict=True)] if self.products else products

    def exchange(self) -> tuple[Array, Array] | None:
        """Return A, shape (kept, lost), and b, shape (lost,); `None` if the inputs were not finite or all alike."""
        if not self.is_finite:
            return None
        if self.rows:  # the same by the equations of the rows: A = X' (X X' + ridge)^-1 Y, all less their means
            x, y = (np.concatenate(parts) for parts in zip(*self.rows, strict=True))
            means = x.mean(0), y.mean(0)
            squares, apart = np.square(x).sum(0).mean(), x - means[0]
            ridge = RIDGE * np.square(apart).sum(0).mean()
            if ridge <= _ROUNDING * squares:
                return None
            exchange = apart.T @ np.linalg.solve(apart @ apart.T + ridge * np.eye(len(x)), y - means[1])
            return exchange, means[1] - means[0] @ exchange
        gram, moment = self.products
        squares = np.diag(gram)[:-1]
        ridge = RIDGE * np.mean(squares - np.square(gram[-1, :-1]) / gram[-1, -1])
        if ridge <= _ROUNDING * squares.mean():
            return None
        solution = np.linalg.solve(gram + np.diag(np.append(np.full(len(self.kept), ridge), 0)), moment)
        return solution[:-1], solution[-1]

    def solve(self) -> None:
        """Put the new kernel and bias in; if the inputs do not tell them, the old ones stay."""
        found = self.exchange()
        if found is None:
            return
        exchange, constant = found
        kernel = np.moveaxis(np.array(ops.convert_to_numpy(self.layer.kernel)), self.axis, 0)
        lost = kernel[self.lost]
        if self.layer.use_bias:
            once = np.prod(self.layer.strides) if isinstance(self.layer, _TRANSPOSED) else 1
            shift = constant @ lost.reshape(len(lost), -1, kernel.shape[-1]).sum(1) / once
            self.layer.bias.assign_add(shift.astype(kernel.dtype))
        fitted = kernel[self.kept] + np.tensordot(exchange, lost, 1).astype(kernel.dtype)
        if self.normalization is not None:
            fitted *= self._rescale(_lengths(kernel[self.stayed]), _lengths(fitted))
        kernel[self.kept] = fitted
        self.layer.kernel.assign(np.moveaxis(kernel, 0, self.axis))

    def _rescale(self, lengths: Array, now: Array) -> Array:
        """Return what takes each output's kernel back to its length; the statistics, but for a bias, are taken there.

        The length is that of the channels that were in and stay; where none did the kernel is left as it is fitted.
        Neither a bias nor the rows that are out are scaled. Else all would grow where channels take turns.
        """
        factor = np.where((lengths > 0) & (now > 0), lengths / np.where(now > 0, now, 1), 1)
        bias, mean = self.layer.bias if self.layer.use_bias else 0, self.normalization.moving_mean
        mean.assign((mean - bias) * factor + bias)
        self.normalization.moving_variance.assign(self.normalization.moving_variance * factor**2)
        return factor


def _is_short(rows: int, channels: int) -> bool:
    """Whether the equations of the rows are fewer than those of the channels."""
    return rows < channels


def _lengths(kernel: Array) -> Array:
    """The length of each output's kernel, the last axis."""
    return np.sqrt(np.square(kernel).reshape(-1, kernel.shape[-1]).sum(0))


def _run(graph: graphs.Graph, tensors: dict[int, Any], gates: Any, sums: dict[int, _Sums]) -> None:
    """Run a batch through the model, as far as the last reader that it is for."""
    last = {key: index for index, call in enumerate(graph.calls) for key in call.inputs}
    wanted = [index for index, call in enumerate(graph.calls) if id(call) in sums]
    for index, call in enumerate(graph.calls[: max(wanted, default=-1) + 1]):
        if isinstance(call.layer, ChannelGates):
            tensors[call.outputs[0]] = gates
            continue
        if id(call) in sums:
            sums[id(call)].add(tensors[call.inputs[0]])
        graphs.run_call(call, tensors, _as_in_training(call.layer))
        for key in call.inputs:
            if last[key] == index:
                tensors.pop(key, None)


def _as_in_training(layer: Any) -> Any:
    """A batch normalization by the statistics of the batch: the moving ones lag behind a mask that has just changed."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return layer
    return lambda *args, **kwargs: layer(*args, **{**kwargs, "training": True})
