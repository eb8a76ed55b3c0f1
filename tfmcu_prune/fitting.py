"""From the closed form to the file: the mask whose converted file fills a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.resources import over
from tfmcu_prune.rules import Array

_TRIES = 8  # masks that are measured
_FULL = 0.99  # part of a budget behind which no more is tried


def fitted(
    budget: Budget,
    choose: Callable[[Budget], Array],
    predict: Callable[[Array], Resources],
    measure: Callable[[Array], Resources],
) -> tuple[Array, Resources]:
    """Return the mask whose file fills a budget best of those tried, and what that file costs.

    The closed form is given the budget under which the file would just fit, as the last file tells. Where that is
    no help, since the converter did otherwise with it (a memory plan takes half a KiB of flash), it is given a
    budget between one that was small enough and one that was not.

    Args:
        budget: What the file may cost.
        choose: The mask, bool, shape (channels,), that the closed form allows under a budget.
        predict: What a mask costs by the closed form.
        measure: What the file of a mask costs.

    Raises:
        BudgetError: No file tried is within the budget, or `choose` finds no mask.
    """
    best, inside, outside = None, None, None
    proposals, tried = [budget], set[bytes]()
    while len(tried) < _TRIES:
        new = _untried(choose, proposals, tried)
        if new is None:
            break
        proposal, mask = new
        tried.add(mask.tobytes())
        real = measure(mask)
        if over(real, budget):
            outside = proposal
        elif best is None or _filled(real, budget) > _filled(best[1], budget):
            best, inside = (mask, real), proposal
        if best and (best[0].all() or (len(tried) > 1 and _filled(best[1], budget) > _FULL)):
            break
        proposals = [_corrected(budget, predict(mask), real, inside)]
        if inside and outside:
            proposals.append(_between(inside, outside))
            proposals = [proposal for proposal in proposals if _is_below(proposal, outside)]
    if best is None:
        raise BudgetError(
            f"The converted model does not come within {budget}: it takes {real} where {predict(mask)} was expected."
        )
    return best


def _untried(
    choose: Callable[[Budget], Array], proposals: Sequence[Budget], tried: Collection[bytes]
) -> tuple[Budget, Array] | None:
    """The first proposal with a new mask. That no mask meets one is an error only of the first of all, the user's."""
    for proposal in proposals:
        try:
            mask = choose(proposal)
        except BudgetError:
            if not tried:
                raise
            continue
        if mask.tobytes() not in tried:
            return proposal, mask
    return None


def _corrected(budget: Budget, form: Resources, real: Resources, least: Budget | None) -> Budget:
    """The budget for the closed form under which the file meets `budget`, but not below one that can be met."""
    limits, known = budget.limits(), least.limits() if least else {}
    corrected = {name: limits[name] - getattr(real, name) + getattr(form, name) for name in limits}
    return Budget(**{name: max(value, known.get(name, 1)) for name, value in corrected.items()})


def _between(inside: Budget, outside: Budget) -> Budget:
    ends = outside.limits()
    return Budget(**{name: (value + ends[name]) // 2 for name, value in inside.limits().items()})


def _is_below(one: Budget, other: Budget) -> bool:
    ends = other.limits()
    return any(value < ends[name] for name, value in one.limits().items())


def _filled(resources: Resources, budget: Budget) -> float:
    """The part of the budget that is used of the resource of which most is; 1 without limits."""
    return max((getattr(resources, name) / limit for name, limit in budget.limits().items()), default=1.0)
