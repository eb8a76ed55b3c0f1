"""Arena, flash and MACs of a model as linear forms of the channels that its groups keep.

With n the vector of kept channels a group, extended by a constant 1, every cost is made of linear forms a . n:

    MACs   = sum_o (elements_o . n) (reads_o . n)
    flash  = sum_o (rows_o . n) (columns_o . n) + overhead . n
    arena  = max_p (live_p . n) + persistent . n

where o runs over operators and p over the moments of TFLM's initialization and inference.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from tfmcu_prune.channels import Channels, Group
from tfmcu_prune.labelling import row_of
from tfmcu_prune.lowering import lower
from tfmcu_prune.program import Operator, Program
from tfmcu_prune.rules import Array, first_row

# sizeof(builtin data) and sizeof(op data) in the arena, bytes: TFLM 90b983c2 with CMSIS-NN, arm-none-eabi-gcc 12.2
_PERSISTENT = {
    "CONV_2D": (28, 60), "DEPTHWISE_CONV_2D": (28, 60), "FULLY_CONNECTED": (5, 72), "AVERAGE_POOL_2D": (40, 36),
    "MAX_POOL_2D": (40, 36), "SOFTMAX": (4, 64), "ADD": (2, 60), "SUB": (2, 52), "MUL": (1, 36), "RESHAPE": (36, 0),
    "CONCATENATION": (8, 24), "MEAN": (1, 44), "REDUCE_MAX": (1, 44), "LEAKY_RELU": (4, 24), "LOGISTIC": (0, 16),
    "TANH": (0, 16), "HARD_SWISH": (0, 20), "PAD": (0, 56), "ELU": (0, 256), "RELU": (0, 28), "RELU6": (0, 8),
    "STRIDED_SLICE": (24, 84), "TRANSPOSE_CONV": (16, 76), "DIV": (1, 28), "MAXIMUM": (0, 0), "MINIMUM": (0, 0),
    "REDUCE_MIN": (1, 44), "SUM": (1, 44), "RESIZE_BILINEAR": (2, 0), "RESIZE_NEAREST_NEIGHBOR": (2, 0),
    "SPLIT": (4, 0), "SPLIT_V": (4, 0), "PACK": (8, 0), "PRELU": (0, 28), "GATHER": (8, 16), "TRANSPOSE": (0, 0),
    "BATCH_MATMUL": (3, 84), "SQUARED_DIFFERENCE": (0, 112), "RSQRT": (0, 28), "QUANTIZE": (0, 32), "ABS": (0, 28),
    "REVERSE_V2": (0, 0), "UNPACK": (8, 0),
}  # fmt: skip
_PER_CHANNEL = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
_REQUESTS = {"MEAN": 3, "SUM": 3, "REDUCE_MAX": 2, "REDUCE_MIN": 2, "TRANSPOSE_CONV": 2}  # scratch buffers; else 1
_FLASH_OPTIONS = 16  # what an operator without a table of options takes less, by the layout of the format
_NO_OPTIONS = {"LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "ELU", "PRELU"}


@dataclass(frozen=True)
class ResourceModel:
    """The linear forms of a model; rows over (groups + 1), the last column being the constant part.

    Args:
        groups: The groups of channels, in the order of the columns.
        program: The operators.
        activations: Bytes of each activation.
        live: Which activations are alive while each operator runs, 1.0 or 0.0.
        scratch: Bytes of scratch of each operator.
        transposed: The transposed convolutions whose scratch is a product: place, and both factors.
        left, right: Factors of the kernel elements of each operator that has a kernel.
        scaled: Which of these have a scale a channel, bool.
        elements, reads: Factors of the MACs of each operator.
        outputs: Output channels of each operator with per-channel scales.
        biased, zeros: Which of these have a bias, and which one of zeros, bool.
        counts: How many operators, activations, kernels and biases, operands of one scale, and small integers it has.
        reshapes: What tells a constant shape from others, two numbers and its elements as a form; equal ones are one.
        requests: Number of scratch buffers.
        persistent: Bytes of the arena that no mask changes.
        names: Bytes of the file for the names of activations, less the options that operators do not have.
    """

    groups: tuple[Group, ...]
    program: Program
    activations: Array
    live: Array
    scratch: Array
    transposed: tuple[tuple[int, Array, Array], ...]
    left: Array
    right: Array
    scaled: Array
    elements: Array
    reads: Array
    outputs: Array
    biased: Array
    zeros: Array
    counts: tuple[int, ...]
    reshapes: Array
    requests: int
    persistent: int
    names: int

    @functools.cached_property
    def moments(self) -> Array:
        """Bytes alive while each operator runs as forms, not rounded: activations and scratch."""
        return self.live @ self.activations + self.scratch

    @functools.cached_property
    def curvature(self) -> tuple[Array, Array]:
        """The second derivatives of flash and MACs, which are quadratic, by the sizes."""
        flash, macs = self.left.T @ self.right, self.elements.T @ self.reads
        return flash + flash.T, macs + macs.T

    @functools.cached_property
    def linear(self) -> tuple[Array, Array]:
        """What is linear in arena and flash beside the activations and kernels: biases and scales a channel."""
        flash = 4 * self.right[self.scaled].sum(axis=0) + 8 * self.outputs[self.biased].sum(axis=0)
        return 8 * self.outputs.sum(axis=0), flash + 4 * self.outputs[self.zeros].sum(axis=0)

    @functools.cached_property
    def bounds(self) -> Array:
        """The smallest and the full sizes, int64, shape (2, groups)."""
        pairs = [(group.minimum, group.size) for group in self.groups]
        return np.array(pairs, np.int64).reshape(len(pairs), 2).T

    def full(self) -> Array:
        """Return the sizes of an unpruned model, int64, shape (groups,)."""
        return self.bounds[1].copy()

    @property
    def multiple(self) -> int:
        """What the sizes chosen are multiples of, if not full."""
        return self.groups[0].multiple if self.groups else 1

    def least(self) -> Array:
        """Return the smallest sizes, int64, shape (groups,)."""
        return self.bounds[0].copy()

    def depths(self) -> Array:
        """Return how many layers, one behind the other, make each group, int64, shape (groups,)."""
        return np.array([group.depth for group in self.groups], np.int64)

    def by_group(self) -> ResourceModel:
        """Return the model where each group counts once, however many layers make it."""
        groups = (dataclasses.replace(group, depth=1) for group in self.groups)
        return dataclasses.replace(self, groups=tuple(groups))

    def within(self, kept: Array) -> ResourceModel:
        """Return the model as it is where only the channels in `kept`, bool, shape (channels,), are left to choose."""
        groups = (dataclasses.replace(g, channels=g.channels[kept[g.channels]]) for g in self.groups)
        return dataclasses.replace(self, groups=tuple(groups))

    def sizes(self, mask: Array) -> Array:
        """Return the kept channels a group under a mask."""
        return np.array([int(mask[group.channels].sum()) for group in self.groups], np.int64)


def resource_model(channels: Channels) -> ResourceModel:
    """Lower a labelled model to TFLite operators and write their costs as linear forms."""
    program = lower(channels)
    if program.estimated:
        _say_estimated(program.estimated)
    forms = _Forms(channels)
    kernels = with_constants(program)
    per_channel = [o for o in program.operators if o.kind in _PER_CHANNEL]
    multiplying = [o for o in program.operators if o.macs is not None]
    scratch = forms.rows([_scratch(o, program, forms) for o in program.operators])
    return ResourceModel(
        groups=channels.groups,
        program=program,
        activations=forms.rows([w * forms.of(a) for a, w in zip(program.activations, program.widths, strict=True)]),
        live=_live(program),
        scratch=scratch,
        transposed=tuple(_transposed(program, forms)),
        left=forms.rows([forms.of(o.kernel[0]) * o.kernel[2] for o in kernels if o.kernel]),
        right=forms.rows([forms.of(_columns(o)) for o in kernels]),
        scaled=np.array([o.kind in _PER_CHANNEL for o in kernels], bool),
        elements=forms.rows([forms.of(program.activations[_multiplied(o)]) for o in multiplying]),
        reads=forms.rows([forms.of(o.macs[0]) * o.macs[1] for o in multiplying if o.macs]),
        outputs=forms.rows([forms.of(_columns(o)) for o in per_channel]),
        biased=np.array([o.bias and not o.zeros for o in per_channel], bool),
        zeros=np.array([o.bias and o.zeros for o in per_channel], bool),
        counts=_counts(program, kernels),
        reshapes=_reshapes(program, forms),
        requests=sum(
            _REQUESTS.get(o.kind, 1) for o, size in zip(program.operators, scratch, strict=True) if size.any()
        ),
        persistent=_persistent(program),
        names=sum(4 * (len(o.layer) // 4 + 2) - _FLASH_OPTIONS * (o.kind in _NO_OPTIONS) for o in program.operators),
    )


def with_constants(program: Program) -> list[Operator]:
    """The operators with constants, those of a layer that is called several times once."""
    unique: dict[tuple[str, ...], Operator] = {}
    for place, o in enumerate(program.operators):
        if o.kernel is not None:
            number = o.kernel[0] is None and o.kernel[1] is None and o.weight
            key = ("number", o.weight) if number else (o.layer, o.kind, o.weight) if o.weight else (str(place),)
            unique[key] = o
    return list(unique.values())


def _counts(program: Program, kernels: Sequence[Operator]) -> tuple[int, ...]:
    """How many operators, activations, kernels and biases, operands of one scale, and small integers there are."""
    kinds = [o.kind in _PER_CHANNEL for o in kernels]
    biases = sum(o.bias for o in program.operators)
    small = len({key for o in program.operators for key in _small(o, program)})
    return len(program.operators), len(program.activations), sum(kinds) + biases, len(kinds) - sum(kinds), small


def _small(operator: Operator, program: Program) -> list[tuple[object, ...]]:
    """What tells the constant integers of an operator from those of others; equal ones are written once."""
    if operator.kind == "RESHAPE":  # equal where the sizes are: see `_reshapes`
        return []
    if operator.kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        return [("resize", *program.activations[operator.output].shape, *operator.constants)]
    if operator.axes:
        return [("axes", *operator.axes)]
    where = operator.pads or (operator.layer, operator.output)
    return [(number, size, where) for number, size in enumerate(operator.constants)]


def _reshapes(program: Program, forms: _Forms) -> Array:
    """Of each shape that a RESHAPE has as its constant: dimensions, first one of several, and elements as a form."""
    rows = [np.zeros((0, 2 + len(forms.sizes)))]
    for operator in program.operators:
        if operator.kind == "RESHAPE":
            labels = program.activations[operator.output]
            rows.append(np.hstack([labels.ndim, labels.shape[0] if labels.ndim > 1 else 0, forms.of(labels)])[None])
    return np.concatenate(rows)


def _transposed(program: Program, forms: _Forms) -> Iterator[tuple[int, Array, Array]]:
    """The transposed convolutions for which CMSIS-NN turns the kernel round, if it has more than 16 input channels."""
    for place, operator in enumerate(program.operators):
        if operator.kind == "TRANSPOSE_CONV" and operator.window and max(operator.window.strides) <= 2:
            rows = operator.window.elements * forms.of(first_row(program.activations[operator.inputs[0]]))
            yield place, rows, forms.of(first_row(program.activations[operator.output]))


@functools.cache  # once a model
def _say_estimated(names: tuple[str, ...]) -> None:
    logging.warning(
        "tfmcu_prune: the arena, flash and MACs of %s are estimated during the training, since the operators that the "
        "converter makes of them are not known; footprint() of the converted file is exact",
        ", ".join(names),
    )


def align(sizes: Array | float) -> Array:
    """Each rounded up to the 16 bytes of TFLM."""
    return np.ceil(sizes / 16) * 16


class _Forms:
    """Counts labels as linear forms of the group sizes."""

    def __init__(self, channels: Channels) -> None:
        self.count = channels.count
        self.columns = np.append(channels.group_of(), len(channels.groups))
        self.sizes = np.append([group.size for group in channels.groups], 1).astype(float)

    def of(self, labels: Array | None) -> Array:
        """The number of elements that stay, as a form; `None` stands for one element."""
        if labels is None:
            return np.append(np.zeros(len(self.sizes) - 1), 1.0)
        row = row_of(labels)
        times = labels.size // max(row.size, 1)
        return times * np.bincount(self.columns[row], minlength=len(self.sizes)) / self.sizes

    def rows(self, forms: list[Array]) -> Array:
        return np.array(forms).reshape(len(forms), len(self.sizes))


def _multiplied(operator: Operator) -> int:
    """The activation for each element of which `macs` are counted; a transposed convolution spreads its input."""
    return operator.inputs[0] if operator.kind == "TRANSPOSE_CONV" else operator.output


def _columns(operator: Operator) -> Array | None:
    return operator.kernel[1] if operator.kernel else None


def _live(program: Program) -> Array:
    """Activation a is alive from the operator that writes it to the last one that reads it."""
    last = len(program.operators) - 1
    first_use, last_use = dict.fromkeys(program.inputs, 0), dict.fromkeys(program.outputs, last)
    for index, operator in enumerate(program.operators):
        first_use.update(dict.fromkeys(operator.outputs, index))
        for a in operator.inputs:
            last_use[a] = max(last_use.get(a, 0), index)
    live = np.zeros((max(len(program.operators), 1), len(program.activations)))
    for a in range(len(program.activations)):
        start = first_use[a]
        live[start : max(last_use.get(a, start), start) + 1, a] = 1
    return live


def _scratch(operator: Operator, program: Program, forms: _Forms) -> Array:
    """Scratch of CMSIS-NN's int8 kernels on a core with DSP extension (../shared/tflm.md, 1.5)."""
    nothing, one = forms.of(None) * 0, forms.of(None)
    source, result = program.activations[operator.inputs[0]], program.activations[operator.output]
    window = operator.window
    axes = (float(align(np.array(4.0 * source.ndim + 4))) + 16) * one  # the resolved axes and an index
    if operator.kind == "AVERAGE_POOL_2D":
        return 4 * forms.of(first_row(result))
    if operator.kind in ("MEAN", "SUM"):
        return 4 * forms.of(result) + axes
    if operator.kind in ("REDUCE_MAX", "REDUCE_MIN"):
        return axes
    if window is None or operator.kernel is None:
        return nothing
    places = source.shape[:2]
    padding = window.padding(places) if window.same else [(0, 0), (0, 0)]
    if operator.kind == "CONV_2D":
        pointwise = window.elements == 1 and not np.any(padding) and window.groups == 1
        return nothing if pointwise else 4 * window.elements * forms.of(first_row(source))
    if operator.kind == "DEPTHWISE_CONV_2D":
        apart = source.shape[-1] != result.shape[-1] or max(window.dilation) > 1
        small = window.size == (3, 3) and max(before for before, _ in padding) <= 1
        return nothing if apart or small else 2 * window.elements * forms.of(first_row(source))
    if operator.kind == "TRANSPOSE_CONV":
        row = (places[1] - 1) * window.strides[1] + max(window.size[1], window.strides[0])
        return 4 * row * max(window.size[0], window.strides[0]) * forms.of(first_row(result))
    return nothing


def _persistent(program: Program) -> int:
    """Structs of TFLM, its tensors and operators, builtin data and op data, and the model's inputs and outputs."""
    total = 148 + 32 * len(program.operators)
    for operator in program.operators:
        builtin, data = _PERSISTENT.get(operator.kind, (0, 48))
        total += -(-builtin // 4) * 4 + -(-data // 16) * 16
    return total + 52 * (len(program.inputs) + len(program.outputs)) + 16
