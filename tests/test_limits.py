"""fixed=, multiple_of= and min_channels=: what a user asks to keep is kept, in the table, the masks and the budgets."""

from __future__ import annotations

from pathlib import Path

import keras
import nets
import numpy as np
import pytest
from networks import inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import Budget, PruneCallback, channel_groups
from tfmcu_prune.allocation import allocate, rank_globally, scale_uniformly
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate, floor, over
from tfmcu_prune.rules import Flow, channel_row


class Scale(keras.layers.Layer):
    """A factor a channel: a layer that the package has no rule for."""

    def build(self, shape) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor


def _scaled(layer: keras.layers.Layer) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="first")(inputs)
    x = keras.layers.Conv2D(5, 3, name="second")(layer(x))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))


def _names(channels) -> set[str]:
    return {name for group in channels.groups for name in group.layers}


@pytest.mark.parametrize("how", ["name", "layer", "predicate", "parent"])
def test_fixed_layers_keep_their_channels(how: str) -> None:
    model = nets.nested()
    block = model.get_layer("block").layers[0]
    fixed = {
        "name": [block.name],
        "layer": [block],
        "predicate": lambda layer: layer is block,
        "parent": ["block"],
    }[how]
    channels = channel_groups(model, fixed=fixed)
    assert block.name in _names(channel_groups(model))
    assert block.name not in _names(channels)
    kept = next(group for group in channels.fixed if block.name in group.layers)
    assert (kept.size, kept.why) == (8, "asked for by fixed=")
    assert "asked for by fixed=" in str(channels)


def test_what_is_fixed_stays_so_after_saving(tmp_path: Path) -> None:
    model = randomize(nets.residual())
    name = next(layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    gated = tfmcu_prune.prunable(model, Budget(macs="1M"), fixed=[name], min_channels=2)
    gated.save(tmp_path / "gated.keras")
    again = keras.models.load_model(tmp_path / "gated.keras")
    mask = tfmcu_prune.get_mask(again)
    mask[1:] = random_mask(channel_groups(model, fixed=[name], min_channels=2), 0)[1:]
    tfmcu_prune.set_mask(again, mask | (np.arange(len(mask)) < 2))
    assert tfmcu_prune.strip(again).get_layer(name).filters == model.get_layer(name).filters


def test_a_name_that_no_layer_has() -> None:
    with pytest.raises(ValueError, match=r"'frist'.*nearest names are: first"):
        channel_groups(_scaled(keras.layers.ReLU()), fixed=["frist"])


@pytest.mark.parametrize(("wrong", "value"), [("multiple_of", 0), ("multiple_of", 2.0), ("min_channels", 1.5)])
def test_wrong_limits(wrong: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Expected {wrong} .* Received: {value}"):
        channel_groups(nets.plain(), **{wrong: value})


def test_the_minimum_of_a_group() -> None:
    channels = channel_groups(nets.plain(), min_channels=0.5, multiple_of=4)  # groups of 6 and 8
    assert [group.minimum for group in channels.groups] == [4, 4]
    assert [group.minimum for group in channel_groups(nets.plain(), min_channels=7).groups] == [6, 7]
    gated = tfmcu_prune.prunable(nets.plain(), min_channels=3)
    with pytest.raises(ValueError, match=r"leaves 2 of the 6 channels of the group 'conv2d.*at least 3 must stay"):
        tfmcu_prune.set_mask(gated, np.arange(14) >= 4)


@pytest.mark.parametrize("net", [nets.residual, nets.concat, nets.depthwise], ids=lambda net: net.__name__)
@pytest.mark.parametrize("method", [allocate, rank_globally, scale_uniformly], ids=lambda f: f.__name__)
@pytest.mark.parametrize("multiple", [1, 4])
def test_sizes_are_multiples_within_the_budget(net, method, multiple: int) -> None:
    model = resource_model(channel_groups(net(), multiple_of=multiple))
    full, least = evaluate(model, model.full()), floor(model)
    budget = Budget(flash=(full.flash + least.flash) // 2, macs=(full.macs + least.macs) // 2)
    sizes = method(model, budget, np.random.default_rng(0).random(int(model.full().sum())))
    assert not over(evaluate(model, sizes), budget)
    assert ((sizes % multiple == 0) | (sizes == model.full())).all()
    assert (sizes >= model.least()).all()


def test_a_fit_ends_in_multiples() -> None:
    model = nets.residual()
    gated = tfmcu_prune.prunable(model, Budget(macs=_macs(model) // 2), multiple_of=4)
    gated.compile("sgd", "mse")
    gated.fit(inputs_for(model, 8), np.zeros((8, 3)), batch_size=2, epochs=3, callbacks=[PruneCallback()], verbose=0)
    small = tfmcu_prune.strip(gated)
    filters = [layer.filters for layer in small.layers if hasattr(layer, "filters")]
    assert sum(filters) < 8 + 8 + 12 + 12
    assert all(size % 4 == 0 for size in filters)


def _macs(model: keras.Model) -> int:
    forms = resource_model(channel_groups(model))
    return evaluate(forms, forms.full()).macs


def test_the_floor_is_that_of_the_minimum() -> None:
    budget = Budget(macs=_macs(nets.plain()) // 4)
    with pytest.raises(tfmcu_prune.BudgetError, match="every group of channels at its smallest"):
        tfmcu_prune.prunable(nets.plain(), budget, min_channels=5)
    tfmcu_prune.prunable(nets.plain(), budget)


def test_a_layer_without_a_rule(caplog) -> None:
    model = randomize(_scaled(Scale(name="mine")))
    with pytest.raises(
        tfmcu_prune.UnsupportedLayer, match=r"'mine' of type Scale.*fixed=\"unsupported\".*register_rule"
    ):
        tfmcu_prune.prunable(model)
    caplog.set_level("INFO", logger="absl")
    gated = tfmcu_prune.prunable(model, fixed="unsupported")
    assert "mine (Scale) has no rule: the 12 channels that touch it are kept" in caplog.text
    assert len(tfmcu_prune.get_mask(gated)) == 5
    tfmcu_prune.set_mask(gated, np.arange(5) < 2)
    small, inputs = tfmcu_prune.strip(gated), inputs_for(model)
    np.testing.assert_allclose(outputs_of(small, inputs), outputs_of(gated, inputs), rtol=1e-5, atol=1e-6)


def test_a_registered_rule() -> None:
    class Mine(Scale):
        pass

    def rule(call, inputs, labels) -> Flow:
        return Flow(inputs[0], {"factor": (channel_row(inputs[0], labels, call),)})

    tfmcu_prune.register_rule(Mine, rule)
    model = randomize(_scaled(Mine(name="mine")))
    gated, inputs = tfmcu_prune.prunable(model), inputs_for(model)
    tfmcu_prune.set_mask(gated, np.arange(11) % 2 == 0)
    small = tfmcu_prune.strip(gated)
    assert small.get_layer("mine").factor.shape == (3,)
    np.testing.assert_allclose(outputs_of(small, inputs), outputs_of(gated, inputs), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="Expected a subclass"):
        tfmcu_prune.register_rule(Mine(), rule)
    with pytest.raises(ValueError, match="Expected a rule"):
        tfmcu_prune.register_rule(Mine, None)
