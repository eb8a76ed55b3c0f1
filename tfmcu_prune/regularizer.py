"""The resource-aware regularizer: what each channel's gate costs in the loss."""

from __future__ import annotations

import numpy as np

from tfmcu_prune.budget import Budget
from tfmcu_prune.forms import ResourceModel
from tfmcu_prune.resources import RESOURCES, gradient
from tfmcu_prune.rules import Array


def prices(model: ResourceModel, mask: Array, target: Array, budget: Budget, strength: float) -> Array:
    """Return the price of each channel's gate in the loss, float64, shape (channels,).

    The resource loss is the excess of the kept channels over what the budget affords,

        L_R = sum_k sum_c [c kept now, but not affordable] (dR_k / dn_g(c)) / B_k |gate_c|,

    linearised at the present sizes and scaled so that all of it is `strength` while every gate is open. It acts on the
    channels that are on their way out alone: a penalty on all of them would let every gate sink together.

    Args:
        model: The resources in closed form.
        mask: Channels that are kept now, bool, shape (channels,).
        target: Channels that the final budget affords, bool, shape (channels,).
        budget: The final budget B.
        strength: Sum of the prices, in units of the loss.
    """
    limits = budget.limits()
    result = np.zeros(len(mask))
    if not limits or not model.groups:
        return result
    slopes = gradient(model, model.sizes(mask))
    cost = sum(slopes[RESOURCES.index(name)] / limit for name, limit in limits.items())
    for group, price in zip(model.groups, cost, strict=True):
        result[group.channels] = price
    result[~mask | target] = 0.0
    return strength * result / max(result.sum(), 1e-12)
