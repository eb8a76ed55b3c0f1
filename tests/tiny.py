"""A network of three layers that trains in no time, for tests of trainings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import PruneCallback, Resources
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gating import channels_of
from tfmcu_prune.resources import evaluate, over

SAMPLES, BATCH, STEPS = 48, 8, 6


def network() -> keras.Model:
    """A Sequential of Dense layers with 20 channels that can go."""
    layers = [keras.layers.Dense(n, "relu", name=f"hidden{n}") for n in (12, 8)]
    return keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3, dtype="float32", name="out")])


def data() -> tuple[np.ndarray, np.ndarray]:
    """Three classes, one-hot."""
    rng = np.random.default_rng(0)
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, SAMPLES)]
    return np.concatenate([y, -y], 1) + rng.normal(0, 0.5, (SAMPLES, 6)).astype("float32"), y


def gated(
    optimizer: Any = "sgd", net: Callable[[], keras.Model] = network, loss: Any = "mse", **kwargs: Any
) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = tfmcu_prune.prunable(net(), budget_of(net()))
    model.compile(optimizer, loss, **{"jit_compile": False, **kwargs})
    return model


def form(gated: keras.Model) -> Resources:
    """What the mask of a model costs in closed form, for tests that need no converted file."""
    model = resource_model(channels_of(gated))
    return evaluate(model, model.sizes(tfmcu_prune.get_mask(gated)))


def pruning(begin: int | None = None, end: int | None = None, **kwargs: Any) -> PruneCallback:
    return PruneCallback(begin, end, **{"measure": form, "strength": 0.1, **kwargs})


def fit(model: keras.Model, *args: Any, run: Any = keras.Model.fit, **kwargs: Any) -> keras.callbacks.History:
    """A fit of four epochs in the order of the data."""
    options = {"batch_size": BATCH, "epochs": 4, "shuffle": False, "verbose": 0, "callbacks": [pruning()]}
    return run(model, *(args or data()), **{**options, **kwargs})


def is_within(gated: keras.Model, net: Callable[[], keras.Model] = network) -> bool:
    """Whether channels have gone and the budget holds."""
    mask = tfmcu_prune.get_mask(gated)
    return bool(0 < mask.sum() < len(mask)) and not over(form(gated), budget_of(net()))


def always(relay: Any, epochs: int) -> bool:
    """In the place of `_Relay._pays`: cut whenever a channel has gone, however long an epoch takes."""
    mask = tfmcu_prune.get_mask(relay.gated)
    return bool(epochs and mask.sum() < (len(mask) if relay.twin is None else relay.twin.kept.sum()))
