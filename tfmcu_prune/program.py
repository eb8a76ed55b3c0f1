"""The TFLite operators of a Keras model, with channel labels on what they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmcu_prune.channels import Channels
from tfmcu_prune.graph import Call
from tfmcu_prune.rules import Array


@dataclass(frozen=True)
class Operator:
    """One TFLite operator.

    Args:
        kind: Its name in the TFLite schema.
        layer: The Keras layer that it comes from.
        inputs: Indices of the activations that it reads.
        output: Index of the activation that it writes.
        kernel: Labels (or sizes, for axes that are never cut) of its weights: (input axis, output axis, elements a
            pair); empty where it has none.
        bias: Whether it has an int32 bias.
        macs: Multiply-accumulates for each element of its output: labels of what is summed over, and a factor.
        window: (kernel elements, needs im2col or a column buffer) of a convolution or pooling.
        constants: Number of small constant tensors (shapes, axes, paddings) that it reads.
        fused: Its fused activation.
    """

    kind: str
    layer: str
    inputs: tuple[int, ...]
    output: int
    kernel: tuple[Array | None, Array | None, int] | None = None
    bias: bool = False
    macs: tuple[Array | None, int] | None = None
    window: tuple[int, bool] = (0, False)
    constants: int = 0
    fused: bool = False


@dataclass(frozen=True)
class Program:
    """The operators of a model in order, and the labels of its activations (one element a byte in int8)."""

    operators: tuple[Operator, ...]
    activations: tuple[Array, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Builder:
    """Collects operators while the calls of a graph are visited in order."""

    def __init__(self, channels: Channels) -> None:
        graph = channels.graph
        self.operators: list[Operator] = []
        self.activations: list[Array] = []
        self.at = {id: self.tensor(channels.labels[id]) for id in graph.input_layers}
        read = [id for call in graph.calls for id in call.inputs] + list(graph.output_ids())
        self.readers = {id: read.count(id) for id in channels.labels}

    def tensor(self, labels: Array) -> int:
        self.activations.append(labels)
        return len(self.activations) - 1

    def emit(self, kind: str, call: Call, inputs: Sequence[int], labels: Array, **more: Any) -> int:
        output = self.tensor(labels)
        self.operators.append(Operator(kind, call.name, tuple(inputs), output, **more))
        return output

    def producer(self, call: Call, kinds: set[str]) -> int | None:
        """The index of the operator that makes the call's input for it alone, if it can take more in."""
        if self.readers[call.inputs[0]] != 1 or not self.operators:
            return None
        wanted = self.at[call.inputs[0]]
        for index in range(len(self.operators) - 1, -1, -1):
            operator = self.operators[index]
            if operator.output == wanted:
                return index if operator.kind in kinds and not operator.fused else None
        return None

    def four(self, call: Call, index: int) -> int:
        """A 1-D map as TFLite's 2-D operators take it, (1, time, channels): the same bytes after a RESHAPE."""
        labels = self.activations[index]
        if labels.ndim != 2:
            return index
        return self.emit("RESHAPE", call, [index], labels[None], constants=1)

    def like(self, call: Call, index: int, rank: int) -> int:
        """Back from (1, time, channels) to (time, channels) for an operator that wants the Keras shape."""
        labels = self.activations[index]
        if labels.ndim == rank:
            return index
        return self.emit("RESHAPE", call, [index], labels.reshape(labels.shape[labels.ndim - rank :]), constants=1)
