"""Layers of several operators: normalization by statistics, attention, wrappers, products of activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call
from tfmcu_prune.lowering.elementwise import constant, transposed
from tfmcu_prune.program import Builder
from tfmcu_prune.rewrites import AT_EVERY_PLACE
from tfmcu_prune.rules import Array, Flow, first_row


def _over(labels: Array, axes: Sequence[int]) -> Array:
    """One element in place of each of `axes`."""
    return labels[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(labels.ndim))]


def _normalized(program: Builder, call: Call, index: int, axes: Sequence[int], centered: bool) -> int:
    """(x - mean) / sqrt(variance + epsilon), as `converter` writes it; without the mean where not centered."""
    labels = program.activations[index]
    one, sizes = _over(labels, axes), (4 * len(axes),)
    mean = program.emit("MEAN", call, [index], one, constants=sizes) if centered else index
    kind = "SQUARED_DIFFERENCE" if centered else "MUL"
    square = program.emit(kind, call, [index, mean], labels)
    variance = program.emit("MEAN", call, [square], one, constants=sizes)
    inverse = program.emit("RSQRT", call, [constant(program, call, variance, "ADD", None)], one)
    if centered:
        index = program.emit("SUB", call, [index, mean], labels)
    return program.emit("MUL", call, [index, inverse], labels)


def _scaled(program: Builder, call: Call, index: int) -> int:
    layer = call.layer
    row = first_row(program.activations[index])
    if getattr(layer, "scale", True):
        index = constant(program, call, index, "MUL", row)
    return constant(program, call, index, "ADD", row) if getattr(layer, "center", False) else index


def layer_norm(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    rank = flow.outputs[0].ndim
    index = program.like(call, inputs[0], rank)
    axes = [int(axis) % (rank + 1) - 1 for axis in np.atleast_1d(call.layer.axis)]
    centered = type(call.layer).__name__ == "LayerNormalization"
    return _scaled(program, call, _normalized(program, call, index, axes, centered))


def group_norm(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    labels = flow.outputs[0]
    index = program.like(call, inputs[0], labels.ndim)
    groups = call.layer.groups if call.layer.groups != -1 else labels.shape[-1]
    places = range(labels.ndim - 1)
    if groups == labels.shape[-1]:
        return _scaled(program, call, _normalized(program, call, index, list(places), True))
    apart = labels.reshape(-1, groups, labels.shape[-1] // groups)
    index = program.emit("RESHAPE", call, [index], apart, constants=(16,))
    index = _normalized(program, call, index, [0, 2], True)
    return _scaled(program, call, program.reshape(call, index, labels))


def time_distributed(lowering_of: Callable[[Any], Callable[..., int | tuple[int, ...]]]) -> Callable[..., int]:
    """The wrapped layer at every step; one that works on the last axis alone takes all steps at once."""

    def lowering(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
        shapes = tuple((shape[0], *shape[2:]) for shape in call.shapes if shape is not None)
        weights = {name.removeprefix("layer."): axes for name, axes in flow.weights.items()}
        inner = dataclasses.replace(call, layer=call.layer.layer, shapes=shapes)
        if type(inner.layer).__name__ in AT_EVERY_PLACE:
            result = lowering_of(inner.layer)(program, inner, dataclasses.replace(flow, weights=weights), inputs)
            return result if isinstance(result, int) else result[0]
        labels = flow.outputs[0]
        source = program.activations[inputs[0]]
        first = program.emit("RESHAPE", call, inputs, source[:, None], constants=(4 * source.ndim + 4,))
        one = dataclasses.replace(flow, output=labels[0], weights=weights)
        steps = []
        for step in range(labels.shape[0]):
            part = program.emit("STRIDED_SLICE", call, [first], source[step], constants=(4 * source.ndim + 4,) * 3)
            result = lowering_of(inner.layer)(program, inner, one, [part])
            steps.append(result if isinstance(result, int) else result[0])
        packed = program.emit("PACK", call, steps, labels[:, None])
        return program.emit("RESHAPE", call, [packed], labels, constants=(4 * labels.ndim + 4,))

    return lowering


def matmul(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    a = program.activations[inputs[0]]
    return program.emit("BATCH_MATMUL", call, inputs, flow.outputs[0], macs=(None, a.shape[-1]))


def attention(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """Projections to heads, the product of queries and keys, softmax, the product with the values, a projection."""
    layer = call.layer
    inputs = [program.like(call, index, 2) for index in inputs]
    query, value, key = inputs[0], inputs[1], inputs[-1]
    heads, bias = layer.num_heads, layer.get_config()["use_bias"]

    def shape(*sizes: int) -> Array:
        return np.broadcast_to(np.int64(program.fixed), sizes)

    def project(index: int, name: str, depth: int) -> int:
        rows = flow.weights[f"{name}_dense.kernel"][0]
        steps = program.activations[index].shape[0]
        wide = program.emit(
            "FULLY_CONNECTED", call, [index], shape(steps, heads * depth),
            kernel=(rows, shape(heads * depth), 1), weight=name, bias=bias, macs=(rows, 1),
        )  # fmt: skip
        return program.reshape(call, wide, shape(steps, heads, depth))

    depth, wide = layer.key_dim, layer.get_config()["value_dim"] or layer.key_dim
    q, k = project(query, "query", depth), project(key, "key", depth)
    steps, source = program.activations[query].shape[0], program.activations[key].shape[0]
    k = transposed(program, call, k, shape(heads, source, depth))
    q = transposed(program, call, q, shape(heads, depth, steps))
    scores = program.emit("BATCH_MATMUL", call, [k, q], shape(heads, steps, source), macs=(None, depth))
    scores = constant(program, call, scores, "MUL", None)
    weights = program.emit("SOFTMAX", call, [scores], shape(heads, steps, source))
    v = transposed(program, call, project(value, "value", wide), shape(heads, source, wide))
    mixed = program.emit("BATCH_MATMUL", call, [weights, v], shape(heads, steps, wide), macs=(None, source))
    mixed = transposed(program, call, mixed, shape(steps, heads, wide))
    mixed = program.reshape(call, mixed, shape(steps, heads * wide))
    out = flow.weights["output_dense.kernel"][-1]
    return program.emit(
        "FULLY_CONNECTED", call, [mixed], flow.outputs[0], kernel=(shape(heads * wide), out, 1), weight="output",
        bias=bias, macs=(shape(heads * wide), 1),
    )  # fmt: skip


def einsum_dense(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> int:
    """A dense layer where the equation is one; else as many products as the equation says, estimated."""
    labels, layer = flow.outputs[0], call.layer
    kernel = tuple(layer.kernel.shape)
    if len(kernel) != 2:
        program.estimated[call.name] = None
    rows = np.full(kernel[0], program.fixed)
    columns = np.full(int(np.prod(kernel[1:])), program.fixed)
    return program.emit(
        "FULLY_CONNECTED", call, inputs, labels, kernel=(rows, columns, 1), bias=layer.bias is not None, macs=(rows, 1)
    )
