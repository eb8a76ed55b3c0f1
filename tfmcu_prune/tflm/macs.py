"""Multiply-accumulates of one inference, by operator; those without a formula multiply nothing worth counting."""

from __future__ import annotations

from collections.abc import Callable

from .prepare import Prepare


def _conv(at: Prepare) -> int:
    weights = at.dims(at.input(1), 4)
    return at.output(0).size * weights[1] * weights[2] * weights[3]


def _depthwise(at: Prepare) -> int:
    weights = at.dims(at.input(1), 4)
    return at.output(0).size * weights[1] * weights[2]


def _transpose_conv(at: Prepare) -> int:
    weights = at.dims(at.input(1), 4)
    return at.input(2).size * weights[0] * weights[1] * weights[2]


def _fully_connected(at: Prepare) -> int:
    return at.output(0).size * at.dims(at.input(1), 2)[1]


def _batch_matmul(at: Prepare) -> int:
    left = at.input(0).shape
    return at.output(0).size * left[-2 if at.option("adj_x") else -1] if len(left) > 1 else 0


def _svdf(at: Prepare) -> int:
    batch, width = at.dims(at.input(0), 2)
    filters, memory = at.dims(at.input(2), 2)
    return batch * filters * (width + memory)


def _lstm(at: Prepare) -> int:
    *steps, width = at.dims(at.input(0), 3)
    units = at.dims(at.input(18), 2)[1]
    return steps[0] * steps[1] * 4 * units * (width + units)


_FORMULAS: dict[str, Callable[[Prepare], int]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "SVDF": _svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}


def macs(at: Prepare) -> int:
    """Return the multiply-accumulates of one operator."""
    formula = _FORMULAS.get(at.operator.name)
    return formula(at) if formula is not None else 0
