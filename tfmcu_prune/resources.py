"""Arena, flash and MACs of a model at any sizes of its groups, their slopes, and whether a budget can be met.

Integer evaluation rounds each buffer as TFLM does; the gradient uses a smooth maximum. The figures are those of the
default target of `footprint` (Cortex-M4, CMSIS-NN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import keras
import numpy as np

from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.channels import Channels
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.forms import ResourceModel, align, with_constants
from tfmcu_prune.rules import Array, weight_of

RESOURCES = ("arena", "flash", "macs")
_SMOOTHNESS = 0.05  # kappa of the smooth maximum, as a part of the maximum
_REVERSE_ABOVE = 16  # REVERSE_TCOL_EFFICIENT_THRESHOLD of CMSIS-NN: input channels of a transposed convolution

# Bytes of a compacted .tflite beside its contents: fitted by tools/calibrate_flash.py to converted networks
_FLASH_FILE = 524
_FLASH_EACH = (58, 48, 78, 71, 72)  # an operator, an activation, a kernel or bias, an operand, a small integer


def evaluate(model: ResourceModel, sizes: Array) -> Resources:
    """Return the resources of a model with `sizes` channels kept a group, int64, shape (groups,)."""
    n = np.append(sizes, 1.0)
    macs = round(float((model.elements @ n) @ (model.reads @ n)))
    return Resources(int(_arena_moments(model, n).max()), int(_flash(model, sizes)), macs)


def peak_sram(model: ResourceModel, sizes: Array) -> int:
    """Return the bytes of the activations and scratch alive at the worst operator, each rounded up to 16."""
    return int(_live_bytes(model, np.append(sizes, 1.0)).max())


def _arena_moments(model: ResourceModel, n: Array) -> Array:
    """Bytes of the arena at each moment: every operator's run, then the planning of the memory and the preparation."""
    channels = model.outputs @ n
    buffers, tensors = len(model.activations) + model.requests, sum(_counts_at(model, n)[1:])
    persistent = model.persistent + 12 * tensors + 2 * float(align(4 * channels).sum())
    planning = 12 * (model.requests + 12) + 24 * (tensors + model.requests) + 40 * buffers + 16
    prepare = 12 * (model.requests + 12) + 250 + (12 * channels.max() if len(channels) else 0)
    return align(np.append(_live_bytes(model, n), [planning, prepare]) + persistent)


def _live_bytes(model: ResourceModel, n: Array) -> Array:
    scratch = align(model.scratch @ n)
    for place, rows, columns in model.transposed:
        elements = model.program.operators[place].window
        column = float(rows @ n)
        if elements is not None and column > _REVERSE_ABOVE * elements.elements:
            scratch[place] = align(np.array([4 * column, column * float(columns @ n)])).sum()
    return model.live @ align(model.activations @ n) + (scratch if len(model.scratch) else 0)


def _counts_at(model: ResourceModel, n: Array) -> tuple[int, ...]:
    shapes = np.column_stack([model.reshapes[:, :2], model.reshapes[:, 2:] @ n])
    *others, small = model.counts
    return (*others, small + len({tuple(shape) for shape in shapes.tolist()}))


def flash_terms(model: ResourceModel, sizes: Array) -> tuple[float, ...]:
    """Return what the flash is made of: bytes of contents; numbers of operators, activations and three constants.

    Contents are the names of activations, int8 weights, int32 biases, and the float32 scales of both a channel; the
    zero points (8 bytes a channel) are all zeros, and vectors of equal length are written once, as are biases of zeros.
    """
    n = np.append(sizes, 1.0)
    channels, columns = np.round(model.outputs @ n), np.round(model.right @ n)
    contents = align((model.left @ n) * columns).sum() + 4 * columns[model.scaled].sum()
    contents += (align(4 * channels) + 4 * channels)[model.biased].sum() + 4 * channels[model.zeros].sum()
    contents += 8 * sum(set(channels.tolist())) + 4 * sum(set(channels[model.zeros].tolist()))
    return (float(contents) + model.names, *_counts_at(model, n))


def _flash(model: ResourceModel, sizes: Array) -> float:
    contents, *counts = flash_terms(model, sizes)
    return contents + _FLASH_FILE + sum(size * count for size, count in zip(_FLASH_EACH, counts, strict=True))


def gradient(model: ResourceModel, sizes: Array) -> Array:
    """Return d(arena, flash, macs) / d(sizes), shape (3, groups); see `slope`."""
    n = np.append(np.asarray(sizes, float), 1.0)
    return np.stack([slope(model, n, name) for name in RESOURCES])


def slope(model: ResourceModel, n: Array, name: str) -> Array:
    """Return d(resource) / dn, shape (groups,), at the sizes n with a constant 1 behind, float64, shape (groups + 1,).

    The arena's maximum is smoothed, max + kappa log sum exp((S - max) / kappa) with kappa 5 % of it, so that every
    operator near the peak has its share; MACs and flash are exact.
    """
    if name == "arena":
        live = model.moments @ n
        peak = live.max()
        weight = np.exp((live - peak) / (_SMOOTHNESS * max(peak, 1.0)))
        return ((weight / weight.sum()) @ model.moments + model.linear[0])[:-1]
    curvature, linear = _quadratic(model, name)
    return (curvature @ n + linear)[:-1]


def _quadratic(model: ResourceModel, name: str) -> tuple[Array, Array | float]:
    """The second derivatives of flash or MACs, and what is linear in it."""
    return (model.curvature[0], model.linear[1]) if name == "flash" else (model.curvature[1], 0.0)


def total_slope(model: ResourceModel, limits: Mapping[str, int]) -> Callable[[Array], Array]:
    """Return the function of n that is the sum of `slope`, each as a part of its limit; quadratic ones are one product.

    Args:
        model: The resources in closed form.
        limits: What each resource is divided by.
    """
    size = len(model.groups) + 1
    curvature, linear = np.zeros((size, size)), np.zeros(size)
    for name in [name for name in limits if name != "arena"]:
        second, first = _quadratic(model, name)
        curvature += second / limits[name]
        linear += first / limits[name]

    def at(n: Array) -> Array:
        whole: Array = (curvature @ n + linear)[:-1]
        return whole + slope(model, n, "arena") / limits["arena"] if "arena" in limits else whole

    return at


def over(resources: Resources, budget: Budget) -> dict[str, float]:
    """Return by how much each limited resource is over its budget, as a part of it; nothing where it fits."""
    excess = {name: getattr(resources, name) / limit - 1 for name, limit in budget.limits().items()}
    return {name: value for name, value in excess.items() if value > 0}


def floor(model: ResourceModel) -> Resources:
    """Return what is left with every group at its smallest."""
    return evaluate(model, model.least())


def require_feasible(model: ResourceModel, budget: Budget) -> None:
    """Raise a BudgetError if the budget is below the floor, naming the operator and the group in the way."""
    least = floor(model)
    for name in over(least, budget):
        sizes = model.least()
        operator = _worst_operator(model, name, sizes)
        slope = gradient(model, sizes)[RESOURCES.index(name)]
        group = f" of the group {model.groups[int(np.argmax(slope))].name!r}" if len(slope) else ""
        raise BudgetError(
            f"The budget {name}={getattr(budget, name):,} cannot be met: with every group of channels at its smallest "
            f"the model still takes {getattr(least, name):,} (arena={least.arena:,} B, flash={least.flash:,} B, "
            f"macs={least.macs:,}). In the way is the operator {operator}, with channels{group}. Raise the budget, "
            "or change the model there: a smaller input, an earlier stride or pooling, fewer layers (try "
            "tfmcu_prune.shorten(model, budget))."
        )


def _worst_operator(model: ResourceModel, name: str, sizes: Array) -> str:
    n = np.append(sizes, 1.0)
    operators = model.program.operators
    if name == "arena":
        worst = operators[int(_live_bytes(model, n).argmax())]
    elif name == "macs":
        multiplying = [o for o in operators if o.macs is not None]
        worst = multiplying[int(((model.elements @ n) * (model.reads @ n)).argmax())]
    else:
        kernels = with_constants(model.program)
        worst = kernels[int(((model.left @ n) * (model.right @ n)).argmax())]
    return f"{worst.layer!r} ({worst.kind})"


def count_parameters(channels: Channels, mask: Array) -> int:
    """Return the number of weights of the model that a mask leaves, shared layers counted once."""
    keep, seen, total = np.append(mask, True), set[int](), 0
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        if id(call.layer) in seen or not isinstance(call.layer, keras.Layer):
            continue
        seen.add(id(call.layer))
        named = {id(weight_of(call.layer, name)): axes for name, axes in flow.weights.items()}
        for weight in call.layer.weights:
            axes = named.get(id(weight), (None,) * len(weight.shape))
            kept = (size if a is None else int(keep[a].sum()) for size, a in zip(weight.shape, axes, strict=True))
            total += math.prod(kept)
    return total
