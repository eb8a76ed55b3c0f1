"""How many channels each group keeps: the ramp of the budget and the exact projection onto it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.forms import ResourceModel
from tfmcu_prune.resources import RESOURCES, evaluate, gradient, over, total_slope
from tfmcu_prune.rules import Array

_CHUNK = 0.03  # part of a group that one step of the projection takes away
_STEPS = 32  # how many of them are taken before the budget is looked at


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


def allocate(
    model: ResourceModel,
    budget: Budget,
    salience: Array | None = None,
    *,
    power: float = -1.0,
    scale: Array | None = None,
) -> Array:
    """Return group sizes of a large concave utility within the budget, int64, shape (groups,).

        sum_g k_g u(n_g / (w_g C_g)),   u(s) = (s^a - 1) / a

    over the groups g of width C_g. k_g is how many layers, one behind the other, make the group (`Group.depth`), so
    that a block counts as much in a residual stream, which many of them make, as it would on its own.

    While a budget is violated, channels are taken from the group with the least loss of utility for the relief of the
    violated budgets; afterwards what is left of the budget is given back, the best utility per cost first. The result
    is within the budget by construction, and each group keeps its minimum and its multiple. It is near
    the maximum, not at it, since no channel changes hands after that.

    Args:
        model: The resources in closed form.
        budget: The budget.
        salience: Not used; here since `PruneCallback` gives it to any allocation.
        power: a. 0 is the logarithm, sum_g log n_g; the further below 0 it is, the more the groups shrink alike.
        scale: w, how many times its width each group counts as, shape (groups,): above 1 it keeps more. Default: 1.

    Raises:
        BudgetError: The budget cannot be met with every group at its minimum.

    Source: the alpha-fair utilities of Mo & Walrand 2000 with alpha = 1 - a. The concave utility keeps layers from
        collapsing; the logarithm (a = 0) makes wide and narrow layers take turns, because the cost of
        a layer is the product of two widths. k_g is ours: with 1 for all groups ResNet-8 and ResNet-20 were worse on
        `val` of tools/benchmark.py (its method ours:allocation=groups).
    """
    worth = _utilities(model, power, scale)
    return _refill(model, budget, _shrink(model, budget, worth), worth)


def rank_globally(model: ResourceModel, budget: Budget, salience: Array) -> Array:
    """Return the group sizes that one threshold on the salience of all channels leaves, int64, shape (groups,).

    The least salient channels of the whole model go until the budget holds, but the minimum of a group stays; then
    those that still fit come back, the most salient first.

    Raises:
        BudgetError: The budget cannot be met with every group at its minimum.

    Source: the usual global ranking, for example Molchanov et al. 2019 (arXiv 1906.10771).
    """
    order = _removal_order(model, salience)
    low, high = 0, len(order)
    while low < high:  # costs only grow with the sizes
        middle = (low + high) // 2
        low, high = (low, middle) if _within(model, budget, _without(model, order[:middle])) else (middle + 1, high)
    sizes = _without(model, order[:low])
    if excess := over(evaluate(model, sizes), budget):
        raise BudgetError(f"The budget {budget} cannot be met; {_describe(evaluate(model, sizes), excess)}.")
    closed = np.zeros(len(sizes), bool)
    for group in order[:low][::-1]:
        sizes[group] += not closed[group]
        if not closed[group] and not _within(model, budget, sizes):
            sizes[group] -= 1
            closed[group] = True
    return _allowed(model, sizes)


def scale_uniformly(model: ResourceModel, budget: Budget, salience: Array | None = None) -> Array:
    """Return the sizes of the largest width multiplier within the budget, int64, shape (groups,).

    Raises:
        BudgetError: The budget cannot be met with every group at its minimum.
    """
    least = uniform(model, 0.0)
    if excess := over(evaluate(model, least), budget):
        raise BudgetError(f"The budget {budget} cannot be met; {_describe(evaluate(model, least), excess)}.")
    low, high = 0, 1001
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _within(model, budget, uniform(model, middle / 1000)) else (low, middle)
    return uniform(model, low / 1000)


def uniform(model: ResourceModel, share: float) -> Array:
    """Return the sizes at a width multiplier between 0 and 1; the minimum of each group stays."""
    return _allowed(model, np.round(share * model.full()).astype(np.int64))


def shadow_prices(model: ResourceModel, budget: Budget, sizes: Array) -> dict[str, float]:
    """Return what each budget is worth at an allocation: the utility that one per cent more of it would bring.

        u'(n_g) = sum_r lambda_r dR_r/dn_g   for every group g that is neither full nor at its minimum

    The prices lambda >= 0 that fit these conditions best, by least squares, for the resources that bind, which one step
    more of some group would take over their budgets; the others are worth nothing. The utility is that of `allocate`.

    Args:
        model: The resources in closed form.
        budget: The budget.
        sizes: Channels kept a group, int64, shape (groups,).

    Returns:
        The price of each limited resource, in hundredths of the utility of a group that one layer makes.

    Source: the Karush-Kuhn-Tucker conditions of the allocation.
    """
    limits, costs = budget.limits(), evaluate(model, sizes)
    prices = dict.fromkeys(limits, 0.0)
    free = (sizes > model.least()) & (sizes < model.full())
    if not free.any():
        return prices
    slopes = {name: slope[free] for name, slope in zip(RESOURCES, gradient(model, sizes), strict=True)}
    binding = [name for name in limits if getattr(costs, name) + model.multiple * slopes[name].max() > limits[name]]
    worth, every = _utilities(model, -1.0), np.arange(len(sizes))
    gain = (worth[every, sizes - 1] - worth[every, np.maximum(sizes - 2, 0)])[free]
    parts = np.array([slopes[name] / limits[name] for name in binding]).reshape(len(binding), len(gain)).T
    for name, price in zip(binding, _nonnegative_fit(parts, gain), strict=True):
        prices[name] = float(price)
    return prices


def _nonnegative_fit(a: Array, b: Array) -> Array:
    """The x >= 0 with the least |a x - b|, over all choices of what is not 0; a has few columns."""
    best = np.zeros(a.shape[1])
    for chosen in itertools.product((False, True), repeat=a.shape[1]):
        x = np.zeros(a.shape[1])
        x[list(chosen)] = np.linalg.lstsq(a[:, list(chosen)], b, rcond=None)[0]
        if (x >= 0).all() and np.linalg.norm(a @ x - b) < np.linalg.norm(a @ best - b):
            best = x
    return best


def _removal_order(model: ResourceModel, salience: Array) -> Array:
    """The groups that lose a channel, in the order of the salience of these channels."""
    owners, values = [], []
    for index, group in enumerate(model.groups):
        values.append(np.sort(salience[group.channels])[: group.size - group.minimum])
        owners.append(np.full(len(values[-1]), index))
    return np.concatenate(owners)[np.argsort(np.concatenate(values), kind="stable")]


def _without(model: ResourceModel, removed: Array) -> Array:
    return model.full() - np.bincount(removed, minlength=len(model.groups))


def _within(model: ResourceModel, budget: Budget, sizes: Array) -> bool:
    return not over(evaluate(model, sizes), budget)


def _utilities(model: ResourceModel, power: float, scale: Array | None = None) -> Array:
    """Utility of 1, 2, ... channels of each group, shape (groups, largest group)."""
    widths = np.array([group.width for group in model.groups]) * (1 if scale is None else np.asarray(scale))
    share = np.arange(1, int(model.full().max(initial=1)) + 1) / widths.reshape(-1, 1)
    return model.depths().reshape(-1, 1) * (np.log(share) if power == 0 else (share**power - 1) / power)


def _allowed(model: ResourceModel, sizes: Array) -> Array:
    """The largest sizes not above `sizes` that keep the multiple (or all channels) and the minimum of each group."""
    down = np.maximum(sizes // model.multiple * model.multiple, model.least())
    return np.where(sizes >= model.full(), model.full(), down)


def _more(model: ResourceModel, sizes: Array) -> Array:
    """The next larger sizes that are allowed; all channels of a group where there is none."""
    return np.minimum((sizes // model.multiple + 1) * model.multiple, model.full())


def _shrink(model: ResourceModel, budget: Budget, worth: Array) -> Array:
    """Sizes within the budget, from which `_refill` gives back; the budget is looked at every few steps."""
    ladder, loss = _ladder(model, worth)
    rungs, every = np.zeros(len(model.groups), np.int64), np.arange(len(model.groups))

    def excess_at(rungs: Array) -> dict[str, float]:
        return over(evaluate(model, ladder[rungs, every]), budget)

    while excess := excess_at(rungs):
        way = _way_down(model, {name: getattr(budget, name) for name in excess}, ladder, loss, rungs)
        if not way:
            sizes = ladder[rungs, every]
            raise BudgetError(f"The budget {budget} cannot be met; {_describe(evaluate(model, sizes), excess)}.")
        rungs = way[-1]
        if excess_at(rungs).keys() != excess.keys():  # somewhere on the way
            rungs = next(there for there in way if excess_at(there).keys() != excess.keys())
    return ladder[rungs, every]


def _ladder(model: ResourceModel, worth: Array) -> tuple[Array, Array]:
    """The sizes that each group steps down through, shape (rungs, groups), and the loss of each step, inf at the end.

    A step takes a part of what is left, so the rungs grow with the logarithm of the sizes.
    """
    rungs = [model.full()]
    while len(rungs) == 1 or (rungs[-1] < rungs[-2]).any():
        sizes = rungs[-1]
        fewer = _allowed(model, sizes - np.maximum(1, (sizes * _CHUNK).astype(np.int64)))
        rungs.append(np.minimum(fewer, sizes))
    ladder = np.array(rungs)
    utility = worth[np.arange(len(model.groups)), ladder - 1]
    return ladder, np.where(ladder[1:] < ladder[:-1], utility[:-1] - utility[1:], np.inf)


def _way_down(model: ResourceModel, limits: Mapping[str, int], ladder: Array, loss: Array, rungs: Array) -> list[Array]:
    """The rungs behind each of the next steps while the budgets in `limits` are the violated ones."""
    every, way, relief = np.arange(len(rungs)), list[Array](), total_slope(model, limits)
    n, least_loss = np.append(ladder[rungs, every], 1.0), loss[rungs, every]
    taken = n[:-1] - ladder[rungs + 1, every]
    for _ in range(_STEPS):
        best = int(np.argmin(least_loss / (taken * relief(n) + 1e-12)))
        if least_loss[best] == np.inf:
            break
        rungs = rungs.copy()
        rungs[best] += 1
        size, smaller = ladder[rungs[best] : rungs[best] + 2, best]
        n[best], taken[best], least_loss[best] = size, size - smaller, loss[rungs[best], best]
        way.append(rungs)
    return way


def _describe(resources: Resources, excess: dict[str, float]) -> str:
    return ", ".join(f"{name} is still {getattr(resources, name):,}" for name in excess)


def _refill(model: ResourceModel, budget: Budget, sizes: Array, worth: Array) -> Array:
    every, cost = np.arange(len(model.groups)), total_slope(model, budget.limits())
    open_groups = sizes < model.full()
    while open_groups.any():
        more = _more(model, sizes)
        paid = np.maximum(more - sizes, 1) * (cost(np.append(sizes, 1.0)) + 1e-12)
        gain = (worth[every, more - 1] - worth[every, sizes - 1]) / paid
        best = int(np.argmax(np.where(open_groups, gain, -np.inf)))
        before, sizes[best] = sizes[best], more[best]
        if over(evaluate(model, sizes), budget):  # so this group is done: costs grow, but for a few bytes of flash
            sizes[best] = before
            open_groups[best] = False
        elif sizes[best] == model.groups[best].size:
            open_groups[best] = False
    return sizes


def choose(model: ResourceModel, salience: Array, sizes: Array) -> Array:
    """Return the mask that keeps the `sizes` most salient channels of each group, bool, shape (channels,)."""
    mask = np.zeros(len(salience), bool)
    for group, size in zip(model.groups, sizes, strict=True):
        order = np.argsort(-salience[group.channels], kind="stable")
        mask[group.channels[order[:size]]] = True
    return mask
