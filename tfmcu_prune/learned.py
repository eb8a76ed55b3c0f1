"""Learned sizes of the groups: the differentiable form, in which the task loss has its say in the allocation.

    L = L_task + mu (sum_r lambda_r R_r(n) / B_r - sum_g k_g u(n_g / C_g))

n_g is how many channels the group g of width C_g and depth k_g keeps, R_r a resource in closed form and B_r its
budget at the moment. The mask keeps the n_g most salient channels, hard, and its gradient by n_g is that of a soft one:

    p_c = sigmoid((log I_c - tau_g) / T),   sum_{c in g} p_c = n_g,   w_c = dp_c / dn_g = p_c (1 - p_c) / sum p (1 - p)
    dL_task / dn_g = sum_{c in g} w_c dL_task / dgate_c

The optimizer of the model trains the logarithms of n, from their mean, by this gradient. The resource loss is at rest
at the sizes of `allocate`, whose utility is u and whose shadow prices are lambda; mu is what it takes to leave them.
The budget holds by projection all the same: `allocate` takes what was learned as the `scale` of the groups.

Source: the form of Liberis & Lane 2021 (arXiv 2110.08350): learned layer sizes, a mask by salience, a linear
    combination of the losses. The soft mask's gradient is that of DSA, Ning et al. 2020 (arXiv 2004.02164); utility,
    prices and projection are this project's.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from tfmcu_prune.allocation import shadow_prices
from tfmcu_prune.budget import Budget
from tfmcu_prune.forms import ResourceModel
from tfmcu_prune.gates import SizedGates
from tfmcu_prune.resources import RESOURCES, gradient
from tfmcu_prune.rules import Array

_RATE = 8.0  # steps of `log_sizes` are as small as the learning rate; a training has too few of them for it
_LARGEST = 2.0  # of the logarithm of the scale, either way
_WIDTH = 0.5  # T, as a part of the spread of log I in the group


def scale_of(layer: SizedGates) -> Array:
    """Return what was learned as the `scale` of `allocate`, float64, shape (groups,); 1 before the training."""
    return np.exp(np.clip(_RATE * np.asarray(ops.convert_to_numpy(layer.deviations()), float), -_LARGEST, _LARGEST))


def learn(layer: SizedGates, model: ResourceModel, worth: Array, sizes: Array, budget: Budget, strength: float) -> None:
    """Lay down the gradient by which the sizes are trained from here on.

    Args:
        layer: The gates.
        model: The resources in closed form.
        worth: I, the salience of each channel, shape (channels,).
        sizes: n, what each group keeps now, shape (groups,).
        budget: B, the budget at the moment.
        strength: mu, in units of the loss.
    """
    share = np.zeros(len(worth))
    for group, size in zip(model.groups, sizes, strict=True):
        share[group.channels] = size * soft_mask(worth[group.channels], size)[1]
    layer.share.assign(_RATE * share)
    layer.slope.assign(_RATE * strength * sizes * resource_slope(model, sizes, budget))


def soft_mask(worth: Array, size: float) -> tuple[Array, Array]:
    """Return the soft mask p of a group and its derivative w by the group's size, both of shape (channels,).

    Args:
        worth: I, the salience of the group's channels, above 0.
        size: n, the sum of p.
    """
    logs = np.log(np.maximum(worth, 1e-12))
    width = max(_WIDTH * float(logs.std()), 1e-3)
    low, high = logs.min() - 40 * width, logs.max() + 40 * width
    for _ in range(60):  # the threshold tau, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid((logs - middle) / width).sum() > size else (low, middle)
    soft = _sigmoid((logs - low) / width)
    slope = soft * (1 - soft)
    return soft, slope / max(slope.sum(), 1e-12)


def resource_slope(model: ResourceModel, sizes: Array, budget: Budget) -> Array:
    """Return the derivative of sum_r lambda_r R_r / B_r - sum_g k_g u(n_g / C_g) by the sizes, shape (groups,)."""
    prices, limits = shadow_prices(model, budget, sizes), budget.limits()
    slopes = dict(zip(RESOURCES, gradient(model, sizes), strict=True))
    widths = np.array([group.width for group in model.groups])
    resources = sum((prices[name] * slopes[name] / limits[name] for name in limits), np.zeros(len(sizes)))
    slope: Array = resources - model.depths() * widths / np.square(sizes)
    return slope


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
