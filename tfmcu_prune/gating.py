"""`prunable`, which puts gates into a model, and the masks that they hold."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.allocation import allocate
from tfmcu_prune.budget import Budget
from tfmcu_prune.channels import Channels, Fixed, analyze_graph, limits_for
from tfmcu_prune.dropout import reduced_rates
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import ChannelGates, Gated, SizedGates, gates_of, runs_of
from tfmcu_prune.resources import require_feasible
from tfmcu_prune.rules import Array


def prunable(
    model: keras.Model,
    budget: Budget | None = None,
    *,
    fixed: Fixed = (),
    multiple_of: int = 1,
    min_channels: float = 1,
    learn_sizes: bool = False,
) -> keras.Model:
    """Put gates into a model so that `PruneCallback` can prune it while it trains.

    Args:
        model: A built Sequential or functional Keras model, channels_last, with or without trained weights. It is not
            changed, and its weights are copied.
        budget: What the small model may cost; `None` or an empty `Budget` prunes nothing.
        fixed: Layers (or names of layers or of nested models, or a predicate that takes a layer) whose channels are
            all kept; or "unsupported", which keeps the channels that touch a layer without a rule.
        multiple_of: The kept channels a group are a multiple of this, or all of them; 4 or 8 suit SIMD kernels.
        min_channels: Channels that stay in each group at least: a number, or below 1 a part of the group.
        learn_sizes: How many channels each group keeps is trained with the weights, by the gradients of the task loss
            and of a resource loss (`tfmcu_prune.learned`), and not left to the allocation of `PruneCallback` alone. It
            was no more accurate in tools/benchmark.py (ours:learn=1+strength=...).

    Returns:
        An ordinary functional model, not compiled, that predicts what `model` predicts. Its dropout layers have a rate
        for the channels that will be left (`tfmcu_prune.dropout`), and so has what `strip` makes of it; for another
        one, set it before the model is compiled: `gated.get_layer("dropout").rate = 0.4`.

    Raises:
        UnsupportedLayer: A layer whose channels this package has no rule for.
        BudgetError: A budget below what is left with every group of channels at its smallest.
        ValueError: Not such a model, one with a `train_step` of its own or without a channel that can go, or a layer in
            `fixed` that it does not have.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(),
        ...                           keras.layers.Dense(2)])
        >>> gated = prunable(model, Budget(flash="3KiB"))
        >>> get_mask(gated)
        array([ True,  True,  True,  True])
    """
    budget = Budget() if budget is None else budget
    graph = plain_graph(model, budget)
    channels = analyze_graph(graph, limits_for(graph, fixed, multiple_of, min_channels))
    resources = resource_model(channels)
    require_feasible(resources, budget)
    if not channels.count:
        raise ValueError(
            f"The model {model.name!r} has no channel that can go, since all are fixed (print(channel_groups(model)) "
            "says why), and it is within its budget: train it as it is."
        )
    gated = gate(channels, budget, learn_sizes=learn_sizes, trained=_is_trained(graph))
    for name, rate in reduced_rates(channels, allocate(resources, budget)).items():
        gated.get_layer(name).rate = rate
        logging.info("tfmcu_prune: %s drops at a rate of %s, for the channels that will be left", name, rate)
    return gated


def plain_graph(model: keras.Model, budget: Budget) -> graphs.Graph:
    """Read the graph of a model without gates and without training steps that a model made of its graph would lack.

    Raises:
        ValueError: Not such a model, or `budget` is none.
    """
    if not isinstance(budget, Budget):
        raise ValueError(f'Expected a Budget, for example Budget(arena="64KiB"). Received: {budget!r}')
    graph = graphs.read(model)
    if any(isinstance(call.layer, ChannelGates) for call in graph.calls):
        raise ValueError(f"The model {model.name!r} already has gates; pass it to fit, or strip it first.")
    if own := own_steps(model):
        name = type(model).__name__
        raise ValueError(
            f"The model {model.name!r} is a {name} with its own {', '.join(own)}, which a model with gates would lack. "
            f"Put the gates in first: gated = prunable(keras.Model(model.input, model.output), budget), then train "
            f"{name}(gated.input, gated.output), or a model that holds `gated` among its layers."
        )
    return graph


def own_steps(model: keras.Model) -> list[str]:
    """Return which methods of training the class of a model has of its own."""
    steps = ("train_step", "test_step", "compute_loss", "compute_metrics")
    return [name for name in steps if getattr(type(model), name) is not getattr(keras.Model, name)]


def gate(channels: Channels, budget: Budget, *, learn_sizes: bool = False, trained: bool = False) -> keras.Model:
    """Rebuild the model with a `Gated` layer wherever prunable channels are mixed, and copy the weights."""
    gates: list[Any] = []
    made: dict[int, keras.layers.Layer] = {}
    flows = {id(call): flow for call, flow in zip(channels.graph.calls, channels.flows, strict=True)}

    def add_gates(inputs: Any) -> None:
        kind = functools.partial(SizedGates, groups=len(channels.groups)) if learn_sizes else ChannelGates
        fields = (dataclasses.asdict(budget), dataclasses.asdict(channels.limits))
        layer = kind(channels.count, *fields, trained=trained, name="channel_gates")
        gates.append(layer(inputs[0]))

    def make(call: graphs.Call) -> Any:
        layer = made.get(id(call.layer))
        if layer is None:
            flow = flows[id(call)]
            reads = {
                name: (axis, runs_of(flow.weights[name][axis], channels.count)) for name, axis in flow.reads.items()
            }
            layer = zeroed(graphs.copy_layer(call))
            if any(start < channels.count for _, runs in reads.values() for start, _ in runs):
                layer = Gated(layer, reads, several=len(call.inputs) > 1, trainable=layer.trainable)
            made[id(call.layer)] = layer
        return _reading(layer, gates[0]) if isinstance(layer, Gated) else layer

    with graphs.without_drawing() as zeroed:
        gated = graphs.replay(channels.graph, make, add_gates)
    for call in channels.graph.calls:
        if isinstance(call.layer, keras.Layer):
            new = made[id(call.layer)]
            (new.layer if isinstance(new, Gated) else new).set_weights(call.layer.get_weights())
    if isinstance(layer := gates_of(gated), SizedGates):
        layer.owner.assign(channels.group_of())
    return gated


def _is_trained(graph: graphs.Graph) -> bool:
    """Whether weights have been trained or loaded: a bias or statistics of more values than initializers give them.

    Those of new layers are zeros, ones, both (the bias of an LSTM) or one constant.
    """
    layers = {id(call.layer): call.layer for call in graph.calls if isinstance(call.layer, keras.Layer)}
    adapted = keras.layers.Normalization  # its statistics are those of the data
    vectors = [w for layer in layers.values() if not isinstance(layer, adapted) for w in layer.weights if w.ndim == 1]
    return any(len(np.unique(keras.ops.convert_to_numpy(weight))) > 2 for weight in vectors)


def _reading(layer: Gated, gates: Any) -> Any:
    """A gated layer as a function of what the layer in it takes."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return layer(list(args) if layer.several else args[0], gates, **kwargs)

    return run


def ungated(model: keras.Model) -> graphs.Graph:
    """Return the graph of a gated model as it was before the gates came in, with its own layers and weights."""
    graph = graphs.read(model)
    calls = []
    for call in graph.calls:
        if isinstance(call.layer, Gated):
            args = tuple(call.args[0]) if call.layer.several else call.args[:1]
            call = dataclasses.replace(call, layer=call.layer.layer, args=args)
        if not isinstance(call.layer, ChannelGates):
            calls.append(call)
    return graphs.in_run_order(dataclasses.replace(graph, calls=tuple(calls)))


def channels_of(gated: keras.Model) -> Channels:
    """Label the channels of a gated model as `prunable` did."""
    return analyze_graph(ungated(gated), gates_of(gated).limits)


def get_mask(gated: keras.Model) -> Array:
    """Return the mask over the prunable channels of a gated model.

    Args:
        gated: What `prunable` returned.

    Returns:
        bool, shape (channels,), True = kept; the channels of a group of `channel_groups` stand at `group.channels`.

    Raises:
        ValueError: The model has no gates.
    """
    return np.asarray(keras.ops.convert_to_numpy(gates_of(gated).mask)) > 0


def set_mask(gated: keras.Model, mask: Any) -> None:
    """Put a mask into a gated model.

    Args:
        gated: What `prunable` returned.
        mask: bool, shape (channels,) as `get_mask` returns it, True = kept; each group must keep its minimum.

    Raises:
        ValueError: Another shape or dtype, or a group with fewer channels than its minimum.
    """
    layer, mask = gates_of(gated), np.asarray(mask)
    if mask.shape != (layer.count,) or mask.dtype != bool:
        raise ValueError(
            f"Expected a bool mask of shape {(layer.count,)}. Received: {mask.dtype} of shape {mask.shape}."
        )
    for group in channels_of(gated).groups:
        kept = int(mask[group.channels].sum())
        if kept < group.minimum:
            raise ValueError(
                f"The mask leaves {kept} of the {group.size} channels of the group {group.name!r}; "
                f"at least {group.minimum} must stay."
            )
    layer.mask.assign(mask.astype("float32"))
    layer.frozen.assign(0)
    layer.clock.assign([0, 0])  # the next pruning is a new one
    layer.final = None


def settle(gated: keras.Model) -> None:
    """Put the frozen mask back if weights from before the freeze were loaded, so that the budget holds all the same."""
    layer = gates_of(gated)
    if layer.final is None or np.array_equal(layer.final, get_mask(gated)):
        return
    if keras.ops.convert_to_numpy(layer.frozen):  # those of another training, with the mask that it came to
        layer.final = get_mask(gated)
    else:
        logging.warning(
            "tfmcu_prune: weights from before the freeze of the mask were restored (EarlyStopping with "
            "restore_best_weights?). The final mask is put on them, and they are not trained for it. "
            "Use EarlyStopping(start_from_epoch=...) with an epoch after the freeze."
        )
        layer.mask.assign(layer.final.astype("float32"))
        layer.rest()
