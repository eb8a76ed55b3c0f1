"""The TFLite operators of a Keras model, with channel labels on what they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmcu_prune.channels import Channels
from tfmcu_prune.graph import Call
from tfmcu_prune.rules import Array


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling moves over its input; height, width.

    Args:
        size: Elements of its kernel.
        strides: Steps between its places.
        dilation: Steps between its elements.
        same: Whether it pads as TensorFlow's "SAME".
        groups: Groups of input channels.
    """

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same: bool = False
    groups: int = 1

    @property
    def elements(self) -> int:
        return self.size[0] * self.size[1]

    def padding(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Return what "SAME" puts before and behind each axis of an input of `places` (height, width)."""
        result = []
        for count, size, stride, dilation in zip(places, self.size, self.strides, self.dilation, strict=True):
            total = max((-(-count // stride) - 1) * stride + (size - 1) * dilation + 1 - count, 0)
            result.append((total // 2, total - total // 2))
        return result


@dataclass(frozen=True)
class Operator:
    """One TFLite operator.

    Args:
        kind: Its name in the TFLite schema.
        layer: The Keras layer that it comes from.
        inputs: Indices of the activations that it reads.
        outputs: Indices of the activations that it writes.
        kernel: Labels (or sizes, for axes that are never cut) of its weights: (input axis, output axis, elements a
            pair); empty where it has none. A constant operand of an elementwise operator is (None, its labels, 1).
        weight: Name of the layer's weight that the kernel is; a layer that is called again shares it.
        bias: Whether it has an int32 bias.
        zeros: Whether that bias is all zeros.
        macs: Multiply-accumulates for each element of its output: labels of what is summed over, and a factor.
        window: Of a convolution or pooling.
        constants: Bytes of each small constant tensor (shapes, axes, paddings) that it reads.
        pads: What a PAD puts before and behind each axis, without the batch axis.
        axes: Axes that it takes together, without the batch axis.
        fused: Its fused activation, "" for none.
        reverse: Whether a constant operand comes first, as in 1 - x.
    """

    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[Array | None, Array | None, int] | None = None
    weight: str = ""
    bias: bool = False
    zeros: bool = False
    macs: tuple[Array | None, int] | None = None
    window: Window | None = None
    constants: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    axes: tuple[int, ...] = ()
    fused: str = ""
    reverse: bool = False

    @property
    def output(self) -> int:
        """Index of the first activation that it writes."""
        return self.outputs[0]


@dataclass(frozen=True)
class Program:
    """The operators of a model in order, and the labels of its activations.

    Args:
        operators: In the order in which they run.
        activations: Labels of each activation, without the batch axis.
        widths: Bytes of an element of each activation: 1, or more for integers that are the model's input.
        inputs: Indices of the activations that the model reads.
        outputs: Indices of the activations that it returns.
        estimated: Names of the layers whose operators are not known.
    """

    operators: tuple[Operator, ...]
    activations: tuple[Array, ...]
    widths: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    estimated: tuple[str, ...] = ()


class Builder:
    """Collects operators while the calls of a graph are visited in order."""

    def __init__(self, channels: Channels) -> None:
        self.operators: list[Operator] = []
        self.activations: list[Array] = []
        self.estimated: dict[str, None] = {}
        self.at = {key: self.tensor(channels.labels[key]) for key in channels.graph.input_layers}
        self.fixed = channels.count  # the label of every channel that no mask cuts
        self._views: dict[tuple[int, int], int] = {}

    def tensor(self, labels: Array) -> int:
        self.activations.append(labels)
        return len(self.activations) - 1

    def emit(self, kind: str, call: Call, inputs: Sequence[int], labels: Array, **more: Any) -> int:
        """Add an operator with one output; return the index of that."""
        return self.emit_several(kind, call, inputs, [labels], **more)[0]

    def emit_several(
        self, kind: str, call: Call, inputs: Sequence[int], labels: Sequence[Array], **more: Any
    ) -> tuple[int, ...]:
        """Add an operator; return the indices of its outputs."""
        outputs = tuple(self.tensor(a) for a in labels)
        self.operators.append(Operator(kind, call.name, tuple(inputs), outputs, **more))
        return outputs

    def reshape(self, call: Call, index: int, labels: Array) -> int:
        """The same elements in another shape."""
        if self.activations[index].shape == labels.shape:
            return index
        return self.emit("RESHAPE", call, [index], labels, constants=(4 * labels.ndim + 4,))

    def vector(self, call: Call, index: int) -> int:
        """The channels of a single place without the batch axis, as a bias has them."""
        labels = self.activations[index]
        return self.emit("RESHAPE", call, [index], labels[(0,) * (labels.ndim - 1)], constants=(4,))

    def four(self, call: Call, index: int) -> int:
        """A 1-D map as TFLite's 2-D operators take it, (1, time, channels): the same bytes after a RESHAPE."""
        labels = self.activations[index]
        return index if labels.ndim != 2 else self._view(call, index, labels[None])

    def like(self, call: Call, index: int, rank: int) -> int:
        """Back from (1, time, channels) to (time, channels) for an operator that wants the Keras shape."""
        labels = self.activations[index]
        return index if labels.ndim == rank else self._view(call, index, labels[0])

    def _view(self, call: Call, index: int, labels: Array) -> int:
        if (index, labels.ndim) not in self._views:
            view = self.reshape(call, index, labels)
            self._views[index, labels.ndim], self._views[view, self.activations[index].ndim] = view, index
        return self._views[index, labels.ndim]
