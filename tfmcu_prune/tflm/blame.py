"""Which operator is to blame for what a model costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .footprint import Footprint


def cause(fp: Footprint, resource: str) -> str:
    """Return which operator takes most of "arena", "flash" or "macs", as a part of a sentence."""
    if resource == "arena":
        return _arena_cause(fp)
    field = "weights" if resource == "flash" else "macs"
    worst = max(fp.operators, key=lambda operator: getattr(operator, field), default=None)
    if worst is None:
        return "it has no operators"
    unit = "bytes of weights" if resource == "flash" else "multiply-accumulates"
    return f"operator {worst.index} ({worst.name}) takes the most, {getattr(worst, field):,} {unit}"


def _arena_cause(fp: Footprint) -> str:
    if fp.peak.phase == "planning":
        return (
            f"TFLM's memory planner needs {fp.phases['planning']:,} bytes for {len(fp.operators)} operators; "
            "fewer operators and tensors help"
        )
    if fp.peak.phase == "prepare":
        worst = fp.operators[fp.peak.preparing]
        return (
            f"operator {worst.index} ({worst.name}) takes the most while TFLM starts, {fp.phases['prepare']:,} bytes "
            "with its temporary structs; fewer output channels help"
        )
    alive = ", ".join(f"{what} {size:,}" for what, size in fp.peak.live[:3])
    return (
        f"operator {fp.peak.operator} ({fp.peak.name}) has the most alive, {alive}; the persistent part is {fp.tail:,}"
    )
