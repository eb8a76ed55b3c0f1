"""What the package cannot prune: errors that name the layer, its inputs' shapes and the remedy; then the remedies."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from absl import logging
from keras import layers, ops
from networks import half_mask, inputs_for, outputs_of, random_mask, randomize

import tfmcu_prune
from tfmcu_prune import UnsupportedLayer
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.rules import Flow, channel_row
from tfmcu_prune.rules.table import TABLE


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    """One factor a channel."""

    def build(self, shape) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor


@keras.saving.register_keras_serializable("tests")
class Exchange(layers.Layer):
    """Two inputs, two outputs, and every output of all channels of both."""

    def call(self, x, y):
        return x + ops.mean(y, axis=-1, keepdims=True), y + ops.mean(x, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tests")
def _twice(x):
    return 2 * x


class MyConv(layers.Conv2D):
    """A subclass may do anything."""


def _with(layer) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layer(layers.Conv2D(4, 3, name="before")(inputs))
    x = layers.Conv2D(5, 3, name="after")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(6, 1, name="far")(x))))


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda: Scale(name="odd"), "Scale"),
        (lambda: layers.Lambda(_twice, name="odd"), "Lambda"),
        (lambda: layers.Lambda(lambda x: 2 * x, name="odd"), "Lambda"),
        (lambda: MyConv(4, 1, name="odd"), "MyConv"),
        (lambda: layers.SpectralNormalization(layers.Conv2D(4, 1), name="odd"), "SpectralNormalization"),
    ],
    ids=["custom", "function", "lambda", "subclass", "wrapper"],
)
@pytest.mark.parametrize("function", [tfmcu_prune.prunable, tfmcu_prune.channel_groups])
def test_a_layer_without_a_rule(layer, kind: str, function) -> None:
    message = rf"'odd' of type {kind}.*fixed=\"unsupported\".*tfmcu_prune\.register_rule\({kind}, .*\(None, 6, 6, 4\)"
    with pytest.raises(UnsupportedLayer, match=message):
        function(_with(layer()))


def test_an_operation_without_a_rule() -> None:
    inputs = keras.Input((8, 3))
    x = layers.Dense(3, name="before")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(ops.cross(x, x)))
    with pytest.raises(UnsupportedLayer, match=r"of type Cross.*fixed=\"unsupported\".*\(None, 8, 3\)"):
        tfmcu_prune.prunable(model)


@pytest.mark.parametrize(
    "layer",
    [lambda: Scale(name="odd"), lambda: layers.Lambda(_twice, name="odd"), lambda: MyConv(4, 1, name="odd")],
    ids=["custom", "function", "subclass"],
)
def test_all_that_touches_it_is_kept(layer) -> None:
    """With fixed="unsupported": the channels that come in stay, and those that it makes; the others can go."""
    model = randomize(_with(layer()))
    gated = tfmcu_prune.prunable(model, fixed="unsupported")
    channels = channel_groups(model, fixed="unsupported")
    assert {group.name: group.size for group in channels.groups} == {"after": 5, "far": 6}
    assert any("odd" in group.why and "no rule" in group.why for group in channels.fixed)
    tfmcu_prune.set_mask(gated, half_mask(channels))
    small = tfmcu_prune.strip(gated)
    assert [small.get_layer(name).filters for name in ("before", "after", "far")] == [4, 3, 3]
    inputs = inputs_for(model)
    np.testing.assert_allclose(outputs_of(small, inputs), outputs_of(gated, inputs), atol=1e-5)


def test_a_lambda_that_cannot_be_copied() -> None:
    """A Python lambda has no name to find it by; its own code is no reason to fail in the middle."""
    model = _with(layers.Lambda(lambda x: 2 * x, name="odd"))
    gated = tfmcu_prune.prunable(model, fixed="unsupported")
    inputs = inputs_for(model)
    assert np.array_equal(outputs_of(gated, inputs), outputs_of(model, inputs))
    assert np.array_equal(outputs_of(tfmcu_prune.strip(gated), inputs), outputs_of(model, inputs))


def test_several_inputs_and_outputs_are_kept() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="left")(inputs)
    y = layers.Conv2D(5, 3, name="right")(inputs)
    x, y = Exchange(name="odd")(x, y)
    z = layers.Conv2D(6, 3, name="after")(layers.Concatenate()([x, y]))
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(z))))
    gated = tfmcu_prune.prunable(model, fixed="unsupported")
    channels = channel_groups(model, fixed="unsupported")
    assert [group.name for group in channels.groups] == ["after"]
    tfmcu_prune.set_mask(gated, random_mask(channels, 0))
    inputs = inputs_for(model)
    np.testing.assert_allclose(outputs_of(tfmcu_prune.strip(gated), inputs), outputs_of(gated, inputs), atol=1e-5)


def test_one_line_of_log_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args: lines.append(text % args))
    tfmcu_prune.prunable(_with(Scale(name="odd")), fixed="unsupported")
    assert len([line for line in lines if "odd" in line and " channels " in line]) == 1


def test_a_rule_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, Scale, None)  # gone again after this test
    tfmcu_prune.register_rule(
        Scale, lambda call, inputs, labels: Flow(inputs[0], {"factor": (channel_row(inputs[0], labels, call),)})
    )
    model = randomize(_with(Scale(name="odd")))
    gated, channels = tfmcu_prune.prunable(model), channel_groups(model)
    assert channels.groups[0].layers == ("before", "odd")
    tfmcu_prune.set_mask(gated, half_mask(channels))
    small = tfmcu_prune.strip(gated)
    assert small.get_layer("before").filters == 2
    assert small.get_layer("odd").factor.shape == (2,)
    inputs = inputs_for(model)
    np.testing.assert_allclose(outputs_of(small, inputs), outputs_of(gated, inputs), atol=1e-5)


@pytest.mark.parametrize("bad", [("Scale", print), (Scale(), print), (int, print), (Scale, "rule")])
def test_what_is_no_rule(bad) -> None:
    with pytest.raises(ValueError, match=r"Expected a .*Received"):
        tfmcu_prune.register_rule(*bad)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, data_format="channels_first", name="first"),
        lambda: layers.MaxPooling2D(data_format="channels_first", name="first"),
        lambda: layers.GlobalAveragePooling2D(data_format="channels_first", name="first"),
        lambda: layers.UpSampling2D(data_format="channels_first", name="first"),
        lambda: layers.Flatten(data_format="channels_first", name="first"),
        lambda: layers.BatchNormalization(axis=1, name="first"),
    ],
    ids=["conv", "pool", "global", "up", "flatten", "norm"],
)
def test_channels_first(layer) -> None:
    inputs = keras.Input((4, 8, 8))
    x = layer()(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(UnsupportedLayer, match=r"first.*(channels_last|axis=-1).*\(None, 4, 8, 8\)"):
        tfmcu_prune.prunable(model)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="mine")
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model() -> None:
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match=r"'mine' \(Subclassed\).*subclassed.*keras\.Model\(inputs, outputs\)"):
        tfmcu_prune.prunable(model)


def test_a_subclassed_model_inside() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(Subclassed()(inputs)))
    with pytest.raises(ValueError, match=r"'mine' \(Subclassed\).*subclassed.*keras\.Model\(inputs, outputs\)"):
        tfmcu_prune.prunable(model)


@pytest.mark.parametrize("shape", [(None, None, 3), (8, None, 3), (None, 8, 3)])
def test_unknown_places(shape) -> None:
    inputs = keras.Input(shape, name="image")
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))))
    with pytest.raises(ValueError, match=r"'image'.*\(None, .*None.*, 3\).*keras\.Input"):
        tfmcu_prune.prunable(model)


def test_unknown_steps() -> None:
    inputs = keras.Input((None,), dtype="int32", name="words")
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(4)(layers.Embedding(9, 3)(inputs))))
    with pytest.raises(ValueError, match=r"'words'.*\(None, None\).*keras\.Input"):
        tfmcu_prune.prunable(model)


def test_a_softmax_or_dot_over_channels_is_no_error() -> None:
    """What mixes channels in a known way is kept, and says why."""
    channels = channel_groups(_with(layers.Softmax(name="over")))
    assert any("softmax" in group.why and "over" in group.why for group in channels.fixed)
