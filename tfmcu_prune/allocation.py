"""How many channels each group keeps: the ramp of the budget and the exact projection onto it."""

from __future__ import annotations

import numpy as np

from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.resources import RESOURCES, ResourceModel, evaluate, gradient, over
from tfmcu_prune.rules import Array

_CHUNK = 0.03  # part of a group that one step of the projection takes away


def ramp(budget: Budget, start: Resources, progress: float) -> Budget:
    """Return the budget at a moment of training.

        B(u) = B + (R - B) (1 - u)^3

    Args:
        budget: The budget B at the end; resources without a limit stay so.
        start: The resources R of the unpruned model.
        progress: u, 0 at the first pruning step and 1 at the last one.

    Example:
        >>> ramp(Budget(macs=1000), Resources(arena=0, flash=0, macs=9000), 0.5)
        Budget(arena=None, flash=None, macs=2000)

    Source: the cubic schedule of Zhu & Gupta 2017 (arXiv 1710.01878), on the budget.
    """
    left = (1 - min(max(progress, 0.0), 1.0)) ** 3
    limits = budget.limits()
    return Budget(**{k: b + int(max(getattr(start, k) - b, 0) * left) for k, b in limits.items()})


def allocate(model: ResourceModel, budget: Budget) -> Array:
    """Return the group sizes that maximise sum_g log n_g within the budget, int64, shape (groups,).

    While a budget is violated, channels are taken from the group with the least loss of log n_g for the relief of the
    violated budgets; afterwards what is left of the budget is given back, the best utility per cost first. The result
    is within the budget by construction.

    Raises:
        BudgetError: The budget cannot be met with one channel a group.

    Source: ours; the concave utility keeps layers from collapsing (../shared/method.md).
    """
    return _refill(model, budget, _shrink(model, budget))


def _shrink(model: ResourceModel, budget: Budget) -> Array:
    sizes = model.full()
    while excess := over(evaluate(model, sizes), budget):
        step = np.maximum(1, (sizes * _CHUNK).astype(np.int64))
        free = sizes > step
        if not free.any():
            raise BudgetError(f"The budget {budget} cannot be met; {_describe(evaluate(model, sizes), excess)}.")
        slopes = gradient(model, sizes)
        relief = sum(slopes[RESOURCES.index(name)] / getattr(budget, name) for name in excess)
        loss = np.log(sizes) - np.log(np.maximum(sizes - step, 1))
        score = np.where(free, loss / (step * relief + 1e-12), np.inf)
        sizes[int(np.argmin(score))] -= step[int(np.argmin(score))]
    return sizes


def _describe(resources: Resources, excess: dict[str, float]) -> str:
    return ", ".join(f"{name} is still {getattr(resources, name):,}" for name in excess)


def _refill(model: ResourceModel, budget: Budget, sizes: Array) -> Array:
    limits, full = budget.limits(), model.full()
    open_groups = sizes < full
    while open_groups.any():
        slopes = gradient(model, sizes)
        cost = sum(slopes[RESOURCES.index(name)] / limit for name, limit in limits.items()) + 1e-12
        gain = np.where(open_groups, np.log1p(1 / sizes) / cost, -np.inf)
        best = int(np.argmax(gain))
        sizes[best] += 1
        if over(evaluate(model, sizes), budget):  # costs only grow, so this group is done
            sizes[best] -= 1
            open_groups[best] = False
        elif sizes[best] == full[best]:
            open_groups[best] = False
    return sizes


def choose(model: ResourceModel, salience: Array, sizes: Array) -> Array:
    """Return the mask that keeps the `sizes` most salient channels of each group, bool, shape (channels,)."""
    mask = np.zeros(len(salience), bool)
    for group, size in zip(model.groups, sizes, strict=True):
        order = np.argsort(-salience[group.channels], kind="stable")
        mask[group.channels[order[:size]]] = True
    return mask
