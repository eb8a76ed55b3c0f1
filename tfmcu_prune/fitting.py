"""From the closed form to the file: the mask whose converted file fills a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import keras
import numpy as np

from tfmcu_prune.budget import Budget, Resources
from tfmcu_prune.converter import convert
from tfmcu_prune.errors import BudgetError
from tfmcu_prune.resources import over
from tfmcu_prune.rules import Array
from tfmcu_prune.surgery import strip
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.schema import read_model

_TRIES = 8  # masks that are measured
_FULL = 0.99  # part of a budget behind which no more is tried
_ZERO_POINT = 16  # bytes of a vector with one zero point in a .tflite: length, int64, alignment


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


def measured(gated: keras.Model) -> Resources:
    """Return what the stripped model costs as a converted file."""
    return converted_cost(strip(gated))


def converted_cost(model: keras.Model) -> Resources:
    """Return what a model, trained or not, will cost as a converted file once it is trained.

    Weights that are all zero (biases, say) would vanish from the file and come back with training, so they are filled
    with numbers: `model` is no longer the same afterwards.
    """
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not keras.ops.convert_to_numpy(weight).any():
            weight.assign(rng.uniform(0.01, 0.02, weight.shape) * rng.choice((-1, 1), weight.shape))
    shapes = [(2, *tensor.shape[1:]) for tensor in model.inputs]
    file = convert(model, calibration=[rng.uniform(-1, 1.3, shape).astype("float32") for shape in shapes])
    fp = footprint(file)
    return Resources(fp.arena, fp.flash + _chance(file), fp.macs)


def _chance(file: bytes) -> int:
    """Bytes that a file saves because zero points happen to be equal, which other weights would make different.

    That of a tensor after a ReLU is -128 with any weights; that of the logits may happen to be.
    """
    graph = read_model(file).main
    logits = {index for operator in graph.operators if operator.name == "SOFTMAX" for index in operator.inputs}
    activations = {i: t.zero_point for i, t in enumerate(graph.tensors) if t.quantized and not t.constant}
    points = [point for index, point in activations.items() if point != -128 or index in logits]
    return _ZERO_POINT * (len(points) - len(set(points) - {-128}))
