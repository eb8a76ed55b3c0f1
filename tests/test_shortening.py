"""Layers that a budget is better without: which go, and that what is left is the model without them."""

from __future__ import annotations

import itertools

import keras
import more_nets
import nets
import numpy as np
import pytest
from networks import inputs_for, outputs_of, randomize

import tfmcu_prune
from tfmcu_prune import Budget, BudgetError, shorten, zoo
from tfmcu_prune.allocation import allocate
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import floor
from tfmcu_prune.shortening import as_model, ever_shorter


def _names(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers}


def _gone(model: keras.Model, budget: Budget, **options) -> set[str]:
    return _names(model) - _names(shorten(model, budget, **options))


def _vgg() -> keras.Model:
    return randomize(zoo.vgg_small((14, 14, 1), 10))


def _all_but(model: keras.Model, gone: set[str], x: np.ndarray) -> np.ndarray:
    """The output of a chain of layers without some of them, run by hand."""
    for layer in model.layers[1:]:  # behind the input
        if layer.name not in gone:
            x = layer(x)
    return np.ravel(keras.ops.convert_to_numpy(x))


@pytest.mark.parametrize("gone", [1 / 14, 1 / 16])
@pytest.mark.parametrize(
    ("model", "budget", "parts"),
    [
        (zoo.ds_cnn((49, 10, 1), 11), Budget(arena=9846, flash=8063, macs=354081), 0),
        (zoo.ds_cnn((49, 10, 1), 11), Budget(arena=6511, flash=5168, macs=89412), 2),
        (zoo.vgg_small((14, 14, 1), 10), Budget(arena=5627, flash=8142, macs=175998), 0),
        (zoo.vgg_small((14, 14, 1), 10), Budget(arena=4507, flash=4340, macs=44077), 1),
    ],
    ids=["words-tight", "words-extreme", "fashion-tight", "fashion-extreme"],
)
def test_the_budgets_of_the_benchmark_do_not_hang_on_the_exact_part(model, budget, parts, gone, monkeypatch) -> None:
    left = _gone(model, budget)
    assert sum(name.endswith(("_pw", "conv4")) for name in left) == parts
    monkeypatch.setattr("tfmcu_prune.shortening._GONE", gone)
    assert _gone(model, budget) == left


@pytest.mark.parametrize("net", [*nets.ALL, *more_nets.MORE], ids=lambda net: net.__name__)
def test_every_shorter_network_runs_with_the_weights_that_it_had(net) -> None:
    model = randomize(net())
    channels, inputs = channel_groups(model), inputs_for(model)
    own = {call.name: call.layer for call in channels.graph.calls}
    for _, shorter in itertools.islice(ever_shorter(channels, Budget()), 1, None):
        small = as_model(shorter)
        assert outputs_of(small, inputs).shape == outputs_of(model, inputs).shape
        assert len(shorter.graph.calls) < len(channels.graph.calls)
        for layer in small.layers:
            if layer.weights:
                assert all(map(np.array_equal, layer.get_weights(), own[layer.name].get_weights()))


def test_a_chain_is_the_chain_without_these_layers() -> None:
    model = _vgg()
    budget = Budget(arena=4507, flash=4340, macs=44077)
    gone = _gone(model, budget)
    assert gone == {"conv4", "conv4_bn", "conv4_relu"}
    x = inputs_for(model)
    np.testing.assert_allclose(outputs_of(shorten(model, budget), x), _all_but(model, gone, x), atol=1e-6)


def _block(meet) -> keras.Model:
    """Two convolutions between tensors of one shape, the first of which meets the second."""
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(32, 3, padding="same", name="stem")(x)
    y = keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="wide")(x)
    y = keras.layers.Conv2D(32, 3, padding="same", name="back")(y)
    y = keras.layers.GlobalAveragePooling2D(name="mean")(meet(x, y))
    return randomize(keras.Model(inputs, keras.layers.Dense(3, name="head")(y)))


def test_a_residual_block_goes_as_a_whole() -> None:
    model = _block(lambda x, y: keras.layers.Add(name="sum")([x, y]))
    assert _gone(model, Budget(flash="2700B")) == {"wide", "back", "sum"}


def test_a_residual_block_goes_where_layers_without_a_way_round_them_stay() -> None:
    budget = Budget(flash=8000)
    for residual in (lambda x, y: keras.layers.Add(name="sum")([x, y]), lambda x, y: x + y):
        assert {"wide", "back"} <= _gone(_block(residual), budget)
    side = keras.layers.Conv2D(32, 1, name="side")
    for other in (
        lambda _, y: y,
        lambda x, y: keras.layers.Multiply()([x, y]),
        lambda x, y: keras.layers.Add()([side(x), y]),
    ):
        assert not _gone(_block(other), budget)


def test_parts_go_on_where_the_next_one_alone_would_not_pay() -> None:
    """The third block of these is worth more than its room, with the fourth and the fifth it is not."""
    model = zoo.resnet20((32, 32, 3), 10)
    gone = _gone(model, Budget(arena=25976, flash=45938, macs=5393196))
    parts = {name.removesuffix("_conv1") for name in gone if name.endswith("conv1")}
    assert parts == {"stage1_block1", "stage1_block2", "stage1_block3", "stage3_block2", "stage3_block3"}


def test_a_branch_stays_whole() -> None:
    model = zoo.resnet8((32, 32, 3), 10)
    gone = _gone(model, Budget(arena=12778, flash=7126, macs=425654))
    assert {"stack1_conv1", "stack1_conv2"} <= gone
    assert not any(name.startswith(("stack2", "stack3")) for name in gone)  # their branches change the shape


def test_a_depthwise_convolution_goes_with_the_pointwise_one_behind_it() -> None:
    gone = _gone(zoo.ds_cnn((49, 10, 1), 11), Budget(flash="5KiB"))
    parts = {name.rsplit("_", 1)[0] for name in gone if name.endswith(("_dw", "_pw"))}
    assert parts
    assert all({f"{part}_dw", f"{part}_pw"} <= gone for part in parts)
    assert not any("dropout" in name for name in gone)  # which is no operator of the file


def test_what_goes_leaves_more_channels_to_the_others() -> None:
    model, budget = zoo.ds_cnn((49, 10, 1), 11), Budget(flash="5KiB")
    short = shorten(model, budget)
    before, after = (allocate(resource_model(channel_groups(one)), budget) for one in (model, short))
    assert after.min() > before.min()
    assert len(after) < len(before)


def test_a_loose_budget_changes_nothing() -> None:
    model = _vgg()
    assert shorten(model, Budget(arena="6.7KiB", flash="18KiB")) is model
    assert shorten(model, Budget()) is model


def test_a_budget_that_no_channels_meet_is_met_with_fewer_layers() -> None:
    model = zoo.ds_cnn((49, 10, 1), 11)
    budget = Budget(flash=floor(resource_model(channel_groups(model))).flash - 100)
    with pytest.raises(BudgetError):
        tfmcu_prune.prunable(model, budget)
    tfmcu_prune.prunable(shorten(model, budget), budget)


def test_a_budget_that_nothing_meets_is_left_to_prunable_to_refuse() -> None:
    model = zoo.ds_cnn((49, 10, 1), 11)
    with pytest.raises(BudgetError, match="cannot be met"):
        tfmcu_prune.prunable(shorten(model, Budget(flash=100)), Budget(flash=100))


def test_fixed_layers_stay() -> None:
    model, budget = _vgg(), Budget(flash=4340)
    assert not {"conv2", "conv4"} & _gone(model, budget, fixed=["conv2", "conv4"])
    with pytest.raises(ValueError, match="No layer of the model"):
        shorten(model, budget, fixed=["conv9"])


def test_the_model_is_not_changed() -> None:
    model = _vgg()
    config, before = model.get_config(), model.get_weights()
    shorten(model, Budget(flash=4340))
    assert model.get_config() == config
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_bottleneck_stays() -> None:
    model = zoo.fc_autoencoder(640)
    waist = [layer.name for layer in model.layers if layer.output.shape[-1] == 8]
    channels = channel_groups(model)
    *_, (_, least) = ever_shorter(channels, Budget())
    assert {*waist} <= {call.name for call in least.graph.calls}
    assert len(least.graph.calls) < len(channels.graph.calls)


def test_a_layer_that_is_called_twice_stays() -> None:
    inputs = x = keras.Input((8, 8, 16))
    twice = keras.layers.Conv2D(16, 3, padding="same", name="twice")
    x = keras.layers.Dense(3)(keras.layers.Flatten()(twice(twice(x))))
    assert shorten(model := keras.Model(inputs, x), Budget(flash=1000)) is model


def test_what_has_gates_or_no_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="already has gates"):
        shorten(tfmcu_prune.prunable(nets.plain()), Budget(flash=1000))
    with pytest.raises(ValueError, match="Expected a Budget"):
        shorten(nets.plain(), "2KiB")  # type: ignore[arg-type]
