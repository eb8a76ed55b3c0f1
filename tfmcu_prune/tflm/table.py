"""A footprint as a text that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .footprint import Footprint, OperatorCost

_PHASES = {
    "final": "activations and persistent data",
    "prepare": "temporary structs while an operator starts",
    "planning": "the memory planner while TFLM starts",
}


def size(value: int | None) -> str:
    """Return a byte count with its KiB, "-" for one that is not known."""
    return "-" if value is None else f"{value:,} B ({value / 1024:.1f} KiB)"


def render(fp: Footprint) -> str:
    """Return the table of a footprint."""
    lines = [f"{fp.target}, {fp.kernels} kernels", *_summary(fp), "", "Arena by what it holds:"]
    lines += [f"  {part:<20}{value:>12,}" for part, value in fp.parts.items()]
    lines += ["", *_peak(fp), "", *_operators(fp.operators, fp.peak.operator)]
    if fp.uncertain:
        lines += ["", "Lower bounds only:"]
        lines += [f"  {name}: {reason}" for name, reason in fp.uncertain.items()]
    return "\n".join(lines)


def _summary(fp: Footprint) -> list[str]:
    rows = [
        ("arena", size(fp.arena), f"set by {_PHASES[fp.peak.phase]}"),
        ("arena used", size(fp.arena_used), "as arena_used_bytes() reports"),
        ("flash (model)", size(fp.flash), ""),
        ("code", size(fp.code), f"{size(fp.code_int8)} with int8 registrations" if fp.code_int8 is not None else ""),
        ("stack", size(fp.stack), "bound"),
        ("MACs", f"{fp.macs:,}", ""),
        ("head", size(fp.head), f"no plan can go under {fp.lower_bound:,}"),
    ]
    return [f"  {name:<15}{value:<26}{note}".rstrip() for name, value, note in rows]


def _peak(fp: Footprint) -> list[str]:
    lines = [f"Peak at operator {fp.peak.operator} ({fp.peak.name}), alive there:"]
    return lines + [f"  {value:>10,}  {what}" for what, value in fp.peak.live]


def _operators(operators: tuple[OperatorCost, ...], peak: int) -> list[str]:
    lines = [f"{'':>2}{'#':>4}  {'operator':<28}{'output':<18}{'live':>10}{'scratch':>9}{'weights':>10}{'MACs':>14}"]
    for row in operators:
        mark = "> " if row.index == peak else "  "
        shape = "x".join(map(str, row.output))
        lines.append(
            f"{mark}{row.index:>4}  {row.name:<28}{shape:<18}{row.live:>10,}{row.scratch:>9,}{row.weights:>10,}"
            f"{row.macs:>14,}"
        )
    return lines
