"""Make a .tflite file need a smaller arena without changing what it computes."""

from __future__ import annotations

import os

from ..budget import Budget
from .footprint import Footprint, estimate
from .offline import best_plan
from .order import best_order
from .schema import load, read_model


def optimize(
    data: bytes | str | os.PathLike[str],
    *,
    target: str = "cortex-m4",
    kernels: str = "cmsis-nn",
    budget: Budget | None = None,
) -> bytes:
    """Reorder the operators and write a memory plan, each where it helps.

    A plan costs flash. It is kept where it saves more arena than it takes flash; the order costs nothing. The
    outputs stay equal bit for bit.

    Args:
        data: The bytes of a .tflite file, or its path.
        target: The processor whose arena counts, as in `footprint`.
        kernels: The kernels, as in `footprint`.
        budget: What the file may cost: of ways that fit and ways that do not, one that fits is taken.

    Returns:
        The bytes of the model; as it came if nothing helps.

    Raises:
        InvalidModel: The bytes are not a .tflite model that TFLM could load.
    """
    raw = load(data)
    ordered = best_order(raw, target, kernels)
    candidates = [raw] if ordered is None else [raw, ordered]
    candidates += [planned for each in list(candidates) if (planned := best_plan(each, target, kernels)) is not None]
    costs = [_cost(estimate(read_model(each), target, kernels), budget) for each in candidates]
    return candidates[min(range(len(candidates)), key=lambda i: (costs[i], i))]


def _cost(fp: Footprint, budget: Budget | None) -> tuple[bool, int]:
    limits = budget.limits() if budget else {}
    return any(getattr(fp, name) > limit for name, limit in limits.items()), fp.arena + fp.flash
