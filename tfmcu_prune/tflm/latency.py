"""How long an inference takes, as far as multiply-accumulates tell."""

from __future__ import annotations

from ..boards import Board
from .targets import find_target

# Cycles of the core for one multiply-accumulate of an int8 network, best and worst. "dsp": 1.7 from 24.7 MOps in 99.1
# ms at 216 MHz (Lai, Suda, Chandra, arXiv:1801.06601, Cortex-M7), 10 from the MLPerf Tiny v0.5 reference on a
# NUCLEO-L4R5ZI at 120 MHz (visual wake words: 603 ms for 7.5 M MACs). The others are scaled from these by the
# instructions for one MAC: "mve" has four to eight times as many lanes, "none" no dual MAC, "" is a scalar loop with
# an index computation for each MAC.
_CYCLES_PER_MAC = {"none": (5.0, 30.0), "dsp": (1.7, 10.0), "mve": (0.3, 3.0), "": (15.0, 80.0)}
LATENCY_SOURCE = "an estimate from MACs and published cycles per MAC (arXiv:1801.06601, MLPerf Tiny v0.5), not measured"


def latency(board: Board, macs: int, kernels: str = "cmsis-nn") -> tuple[float, float]:
    """Estimate how long one inference takes, from the multiply-accumulates alone.

    Args:
        board: The board.
        macs: Multiply-accumulates of one inference.
        kernels: "cmsis-nn" or "reference".

    Returns:
        Seconds, best and worst case. It is an estimate (`LATENCY_SOURCE`), not a measurement.
    """
    simd = find_target(board.core).simd if kernels == "cmsis-nn" else ""
    best, worst = _CYCLES_PER_MAC[simd]
    return macs * best / board.clock_hz, macs * worst / board.clock_hz
