"""Fewer layers where a budget is too tight for all of them: what is left of it makes the others wider."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.allocation import allocate
from tfmcu_prune.budget import Budget
from tfmcu_prune.channels import Channels, Fixed, analyze_graph, limits_for
from tfmcu_prune.forms import ResourceModel, resource_model
from tfmcu_prune.gating import plain_graph
from tfmcu_prune.resources import floor, over
from tfmcu_prune.rules import find_rule
from tfmcu_prune.surgery import rebuilt

_GONE = 1 / 15  # the part of its channels at which a group is worth no more than without its layer
_GONE_IN_BLOCK = 2 / 5  # the same in a residual block, of which what went round it stays
_FOLLOWERS = (
    keras.layers.BatchNormalization,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
)
_CHANNELWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

_Value = tuple[float, float]


def shorten(
    model: keras.Model, budget: Budget, *, fixed: Fixed = (), multiple_of: int = 1, min_channels: float = 1
) -> keras.Model:
    """Leave out the layers that a budget is better without, before `prunable`.

    Every operator of a .tflite costs hundreds of bytes of flash and of arena, however few channels it has, and many
    layers of two channels learn less than few layers of five. Layers between two tensors of one shape (a convolution
    with what normalizes and activates it, a depthwise separable block, a residual block as a whole) can go and leave a
    model that runs; a bottleneck, a branch, and layers that are called twice or have no rule stay. They go one after
    the other, each time that without which this is largest, and of all these models it is largest for the one returned:

        sum_g log(n_g / w_g)

    over the groups g of the model, where w_g is the width of a group and n_g what `allocate` leaves of it within the
    budget, at least a fifteenth of it; here a group counts once, however many layers make it. A layer that is gone
    counts as if a fifteenth of its channels were left, and one in a residual block as if 40 % were. The data has no
    say. So a loose budget changes little or nothing, and one that no pruning of channels meets may be met.

    A model with trained weights keeps those of the layers that stay, but no longer predicts the same; the training that
    prunes it must bring that back.

    Args:
        model: A built Sequential or functional Keras model, channels_last. It is not changed.
        budget: What the small model may cost.
        fixed: As in `prunable`; layers that are named here stay.
        multiple_of: As in `prunable`.
        min_channels: As in `prunable`.

    Returns:
        A functional model without these layers, not compiled; `model` itself where all stay.

    Raises:
        UnsupportedLayer: A layer whose channels this package has no rule for.
        ValueError: Not such a model, one with gates or with a `train_step` of its own, or a layer in `fixed` that it
            does not have.

    Example:
        >>> import keras
        >>> from tfmcu_prune import Budget, zoo
        >>> model = zoo.ds_cnn((49, 10, 1), 12)
        >>> len(shorten(model, Budget(flash="5KiB")).layers) < len(model.layers)
        True
        >>> shorten(model, Budget(flash="20KiB")) is model
        True

    Source: ours. Both parts were chosen on `val` of tools/benchmark.py (its methods ours:shorten=1, ours:without=1 to
        7, which leave out as many parts in this order), in trainings of few epochs. All parts from a sixteenth to a
        fourteenth leave out the same layers there. With a thirteenth a block of DS-CNN goes at the tight budget, where
        it is no better without one; with an eleventh a third one goes at the extreme budget, which was far worse, with
        an eighteenth only one. With 40 % five blocks of ResNet-20 go at the tight budget and one of ResNet-8 at the
        loose one, with a third two and none, with which they were worse. Of MobileNetV2 all ten blocks go at the tight
        one: half a point worse than without seven, and better than without four (one run each; with all blocks it was
        not run).
    """
    graph = plain_graph(model, budget)
    channels = analyze_graph(graph, limits_for(graph, fixed, multiple_of, min_channels))
    chosen = _best(ever_shorter(channels, budget))
    if chosen is channels:
        return model
    stay = {call.name for call in chosen.graph.calls}
    gone = [call.name for call in graph.calls if call.name not in stay]
    logging.info("tfmcu_prune: %s is better without the layers %s", budget, ", ".join(gone))
    return as_model(chosen)


def as_model(channels: Channels) -> keras.Model:
    """Return the model of a graph with all its channels."""
    return rebuilt(channels, np.ones(channels.count, bool), np.ones(channels.count))


def _best(candidates: Iterator[tuple[_Value, Channels]]) -> Channels:
    """The candidate that is worth most, of equal ones the first."""
    value, best = next(candidates)
    for gone in itertools.count(1):
        hope = value < (0.0, gone * np.log(_GONE_IN_BLOCK))  # else the next lacks more than this one does
        another = next(candidates, None) if hope else None
        if another is None:
            break
        if another[0] > value:
            value, best = another
    return best


def ever_shorter(channels: Channels, budget: Budget) -> Iterator[tuple[_Value, Channels]]:
    """The channels of a graph, then of that with one part less, and so on, each with its value.

    The part that goes is the one without which the value is highest; of equal ones the last.
    """
    left = [(channels, 0.0)]
    while left:
        values = [_value(resource_model(one).by_group(), budget, lost) for one, lost in left]
        value, index = max(zip(values, range(len(left)), strict=True))
        chosen, lost = left[index]
        yield value, chosen
        left = []
        for graph, worth in _without_one(chosen):
            one = analyze_graph(graph, channels.limits)
            left.append((one, lost + worth * (len(chosen.groups) - len(one.groups))))


def _value(model: ResourceModel, budget: Budget, lost: float) -> _Value:
    """How far the budget cannot be met (0 where it can, else below 0), and what the allocation is worth."""
    if excess := over(floor(model), budget):
        return -sum(excess.values()), 0.0
    sizes = allocate(model, budget)
    worth = sum(np.log(max(size / group.width, _GONE)) for size, group in zip(sizes, model.groups, strict=True))
    return 0.0, round(float(worth + lost), 9)  # alike to the last digit where equal


def _without_one(channels: Channels) -> Iterator[tuple[graphs.Graph, float]]:
    """The graph without each part of it that can go, and what a group that goes with it counts for.

    A part can go that mixes channels, between two stops of one shape.
    """
    graph, fixed = channels.graph, set(channels.limits.fixed)
    mixing = {id(call) for call, flow in zip(graph.calls, channels.flows, strict=True) if flow.reads}
    times = collections.Counter(id(call.layer) for call in graph.calls)

    def may_go(call: graphs.Call) -> bool:
        return call.name not in fixed and times[id(call.layer)] == 1 and find_rule(call.layer) is not None

    for start, end in itertools.pairwise(_stops(graph)):
        part = _between(graph, start, end) if graph.shapes[start] == graph.shapes[end] else []
        if any(id(call) in mixing for call in part) and all(map(may_go, part)):
            residual = any(type(call.layer).__name__ == "Add" and start in call.inputs for call in part)
            yield graphs.bridged(graph, part, end, start), float(np.log(_GONE_IN_BLOCK if residual else _GONE))


def _stops(graph: graphs.Graph) -> list[int]:
    """The tensors at which a part may begin or end, in their order: through each of them everything runs.

    What normalizes or activates an output goes with the layer that makes it, and a depthwise convolution with the one
    behind it that mixes its channels.
    """
    ways: dict[int, dict[int, None]] = {key: {key: None} for key in graph.input_layers}
    for call in graph.calls:
        common = _common([ways[key] for key in call.inputs])
        ways.update((key, {**common, key: None}) for key in call.outputs)
    outputs = graph.output_ids()
    trunk = [key for key in _common([ways[key] for key in outputs]) if key not in outputs]
    return [key for key in trunk if not _is_followed(graph, key) and not _is_channelwise(graph, key)]


def _common(ways: Sequence[dict[int, None]]) -> dict[int, None]:
    """What stands in all of them, in the order of the first; nothing if there is none."""
    return {key: None for key in (ways[0] if ways else ()) if all(key in others for others in ways)}


def _between(graph: graphs.Graph, start: int, end: int) -> list[graphs.Call]:
    """The calls on the ways from a tensor to one behind it."""
    makers = {key: call for call in graph.calls for key in call.outputs}
    part, waiting = dict[int, graphs.Call](), [end]
    while waiting:
        key = waiting.pop()
        if key != start and id(makers[key]) not in part:
            part[id(makers[key])] = makers[key]
            waiting.extend(makers[key].inputs)
    return list(part.values())


def _is_followed(graph: graphs.Graph, tensor: int) -> bool:
    reader = graph.only_reader(tensor)
    return reader is not None and isinstance(reader.layer, _FOLLOWERS)


def _is_channelwise(graph: graphs.Graph, tensor: int) -> bool:
    """Whether a depthwise convolution makes a tensor, or what follows on one."""
    maker = next((call for call in graph.calls if tensor in call.outputs), None)
    if maker is not None and isinstance(maker.layer, _FOLLOWERS):
        return _is_channelwise(graph, maker.inputs[0])
    return maker is not None and isinstance(maker.layer, _CHANNELWISE)
