"""The methods that are compared: each is a function of a job that returns a plain, trained Keras model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

import tfmcu_prune
from bench import networks
from bench.jobs import Job
from bench.peers import torch_pruning
from bench.penalty import Penalty, straight_through
from bench.training import Teacher
from tfmcu_prune import Budget, PruneCallback
from tfmcu_prune.allocation import allocate, rank_globally, scale_uniformly
from tfmcu_prune.channels import Channels, channel_groups
from tfmcu_prune.dropout import reduced_rates
from tfmcu_prune.forms import ResourceModel, resource_model
from tfmcu_prune.rules import Array
from tfmcu_prune.salience import batch_norm_scale, gate_gradient, outgoing_norm, weight_norm

Method = Callable[..., keras.Model]


def _by_group(model: ResourceModel, budget: Budget, salience: Array | None = None, **options: Any) -> Array:
    """`allocate` where each group counts once, however many layers make it."""
    return allocate(model.by_group(), budget, salience, **options)


ALLOCATIONS: dict[str, Callable[..., Any]] = {
    "concave": allocate,
    "groups": _by_group,
    "global": rank_globally,
    "uniform": scale_uniformly,
}
_BY_NORM: dict[str, Any] = {"salience": "norm", "allocation": "global", "calibration": 0}
_RAMP = {"begin": 0.1, "end": 0.5}
"""The parts of the training from which to which the baselines with a ramp prune."""


def dense(job: Job) -> keras.Model:
    """The unpruned network."""
    return job.train(job.network()) if job.trained is None else job.trained


def dense_extra(job: Job) -> keras.Model:
    """The unpruned network, trained for the same extra epochs: what is gained by training alone."""
    return job.train(job.start())


def uniform(job: Job, *, total: float = 1, without: float = 0, dropout: float = 0) -> keras.Model:
    """The uniformly thinner network of the largest width that fits, from scratch.

    Args:
        job: The training.
        total: 1 for the same total epochs; 0 for those of the compression alone, which differ in scenario B.
        without: How many parts of the network are left out before, those that `shorten` would take first.
        dropout: 1 for the rates that `prunable` would give it, 0 for those of the network.
    """
    network = networks.shorter(job.network(), job.budget, int(without)) if without else job.network()
    thin = networks.widest(network, job.budget)
    if dropout:
        sizes = resource_model(channel_groups(thin)).full()
        networks.set_rates(thin, reduced_rates(channel_groups(network), sizes))
    return job.train(thin, epochs=job.before + job.epochs if total else job.epochs)


def scratch(job: Job) -> keras.Model:
    """The sizes that our allocation leaves, from scratch, for the same total epochs."""
    model = job.network()
    gated = tfmcu_prune.prunable(model, job.budget)
    callback = PruneCallback(begin=0, end=0)
    callback.set_model(gated)
    callback.set_params({"epochs": 1, "steps": 1})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_end()
    thin = networks.resized(model, networks.sizes_of(model, tfmcu_prune.get_mask(gated)))
    return job.train(thin, epochs=job.before + job.epochs)


def ours(
    job: Job,
    *,
    begin: float | None = None,
    end: float | None = None,
    strength: float = 0.0,
    salience: str = "outgoing",
    allocation: str = "concave",
    power: float = -1.0,
    distill: float = 0.0,
    cut: float = 0.0,
    calibration: float = 256,
    learn: float = 0.0,
    shorten: float = 0.0,
    without: float = 0.0,
    dropout: float = 1.0,
    multiple_of: float = 1,
) -> keras.Model:
    """PruneCallback; every option is one of its parts.

    Args:
        job: The training.
        begin: Part of the training at which pruning begins; by default the callback's own.
        end: Part at which the mask is frozen; by default the callback's own.
        strength: Of the regularizer.
        salience: "norm", "gamma", "outgoing", "both", "taylor", "norm_taylor", "random".
        allocation: "concave", "groups" (concave, a residual stream counts once), "global", "uniform".
        power: Of the concave utility.
        distill: Part of the labels that the given network teaches; scenario B only.
        cut: 1 for tfmcu_prune.fit, 0 for the fit of Keras.
        calibration: Training samples that the kernels are fitted anew on when channels go; 0 to leave them as they are.
        learn: 1 for sizes that are trained.
        shorten: 1 to leave out the layers that the budget is better without.
        without: How many parts of the network are left out before, those that `shorten` would take first.
        dropout: 0 to leave the rates of dropout as they are.
        multiple_of: The channels that stay of a group are a multiple of it, or all of them.
    """
    start = networks.shorter(job.start(), job.budget, int(without)) if without else job.start()
    start = tfmcu_prune.shorten(start, job.budget) if shorten else start
    gated = _gated(start, job.budget, dropout, learn_sizes=bool(learn), multiple_of=int(multiple_of))
    options = {"power": power} if allocation in ("concave", "groups") else {}
    callback = PruneCallback(
        None if begin is None else job.step(begin),
        None if end is None else job.step(end),
        strength=strength,
        salience=_salience(salience, gated, job.seed),
        allocation=functools.partial(ALLOCATIONS[allocation], **options),
        calibration=job.data.x_train[: int(calibration)] if calibration else None,
    )
    teacher = _teacher(job, distill) if distill else None
    return tfmcu_prune.strip(job.train(gated, [callback], teacher=teacher, cut=bool(cut)))


def one_shot_l2(job: Job, *, dropout: float = 0) -> keras.Model:
    """Global ranking by the kernels' norms, all at once, then fine-tuning: halfway, or at the start in scenario B."""
    part = 0.0 if job.trained is not None else 0.5
    return ours(job, begin=part, end=part, **_BY_NORM, dropout=dropout)


def cubic_l2(job: Job, *, dropout: float = 0) -> keras.Model:
    """Global ranking by the kernels' norms along a cubic ramp (the callback of uNAS)."""
    return ours(job, **_RAMP, **_BY_NORM, dropout=dropout)


def taylor(job: Job) -> keras.Model:
    """Global ranking by the squared gradients of the gates along a cubic ramp."""
    return ours(job, **_RAMP, allocation="global", salience="taylor", calibration=0, dropout=0)


def random(job: Job, **options: Any) -> keras.Model:
    """Ours, with its options, but random channels."""
    return ours(job, salience="random", **options)


def st_gates(job: Job, *, end: float = 0.5, strength: float = 1.0) -> keras.Model:
    """Straight-through per-channel gates under a penalty with dual ascent (PIT-like), then projected."""
    gated = straight_through(_gated(job.start(), job.budget))
    return _penalized(job, gated, Penalty(end, strength=strength), end)


def morphnet(job: Job, *, end: float = 0.5, strength: float = 1.0) -> keras.Model:
    """L1 on scales weighted by marginal cost, then a global ranking by the scales (MorphNet-like)."""
    gated = _gated(job.start(), job.budget)
    return _penalized(job, gated, Penalty(end, strength=strength, fixed=True), end)


def _gated(start: keras.Model, budget: Budget, dropout: float = 0, **options: Any) -> keras.Model:
    """`prunable`, where `dropout` is 0 with the rates of dropout of the network itself."""
    gated = tfmcu_prune.prunable(start, budget, **options)
    if not dropout:
        networks.set_rates(gated, networks.rates(start))
    return gated


def _penalized(job: Job, gated: keras.Model, penalty: Penalty, end: float) -> keras.Model:
    step = job.step(end)
    freeze = PruneCallback(step, step, salience=_gate_size, allocation=rank_globally)
    anew = replace(job, backup=None)  # the multipliers are not among the weights
    return tfmcu_prune.strip(anew.train(gated, [freeze, penalty]))


METHODS: dict[str, Method] = {
    "dense": dense,
    "dense_extra": dense_extra,
    "ours": ours,
    "uniform": uniform,
    "scratch": scratch,
    "one_shot_l2": one_shot_l2,
    "cubic_l2": cubic_l2,
    "taylor": taylor,
    "random": random,
    "straight_through": st_gates,
    "morphnet": morphnet,
    "torch_pruning": torch_pruning,
}


def parse(spec: str) -> tuple[Method, dict[str, Any]]:
    """Return the function and the options of "name" or "name:option=value+option=value".

    Example:
        >>> parse("ours:strength=0+salience=gamma")[1]
        {'strength': 0.0, 'salience': 'gamma'}
    """
    name, _, rest = spec.partition(":")
    if name not in METHODS:
        raise ValueError(f"Unknown method: expected one of {', '.join(METHODS)}. Received: {name!r}")
    pairs = (option.split("=", 1) for option in rest.split("+") if option)
    return METHODS[name], {key: _number(value) for key, value in pairs}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _gate_size(channels: Channels, gates: Any) -> Any:
    return np.abs(gates)


def _salience(name: str, gated: keras.Model, seed: int) -> Callable[[Channels, Any], Any]:
    if name == "norm":
        return weight_norm
    if name == "gamma":
        return batch_norm_scale
    if name == "outgoing":
        return outgoing_norm
    if name == "both":
        return lambda channels, gates: outgoing_norm(channels, gates) * weight_norm(channels, gates)
    if name == "random":
        return lambda channels, _: np.random.default_rng(seed).random(channels.count)
    if name in ("taylor", "norm_taylor"):
        return lambda channels, gates: _taylor(channels, gates, gated, name == "norm_taylor")
    raise ValueError(
        f"Expected the salience norm, gamma, outgoing, both, taylor, norm_taylor or random. Received: {name!r}"
    )


def _taylor(channels: Channels, gates: Any, gated: keras.Model, with_norm: bool) -> Any:
    """Squared gradient of the gates, each relative to the mean of its group when it is combined with the norm."""
    salience = gate_gradient(gated.optimizer)(channels, gates)
    if not with_norm:
        return salience
    relative = np.empty_like(salience)
    for group in channels.groups:
        mean = salience[group.channels].mean()
        relative[group.channels] = np.sqrt(salience[group.channels] / max(mean, 1e-30))
    return np.sqrt(relative * weight_norm(channels, gates))


def _teacher(job: Job, share: float) -> Teacher:
    """The given network, whose predictions are mixed into the labels."""
    if job.trained is None:
        raise ValueError("Only scenario B has a trained network to learn from; expected distill=0 in scenario A.")
    teacher = keras.models.clone_model(job.trained)
    teacher.set_weights(job.trained.get_weights())
    return lambda x, y: (1 - share) * y + share * keras.ops.convert_to_numpy(teacher.predict_on_batch(x))
