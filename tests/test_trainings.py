"""All the ways to train: each ends within the budget, and what ought to come to the same does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from networks import outputs_of
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import Budget, shrinking
from tfmcu_prune.resources import over

SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam
WEIGHTS = np.linspace(0.2, 2, tiny.SAMPLES)


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def _two_outputs() -> keras.Model:
    inputs = keras.Input((6,))
    x = keras.layers.Dense(12, "relu")(inputs)
    y = keras.layers.Dense(3, name="y")(x)
    return keras.Model(inputs, {"y": y, "z": keras.layers.Dense(2, name="z")(keras.layers.Dense(8, "relu")(x))})


TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam, jit": ({"optimizer": "adam", "jit_compile": True}, {}),
    "clipnorm": ({"optimizer": ADAM(0.01, clipnorm=0.1)}, {}),
    "accumulated": ({"optimizer": ADAM(0.01, gradient_accumulation_steps=4)}, {}),
    "averaged": ({"optimizer": ADAM(0.01, use_ema=True, ema_overwrite_frequency=5)}, {}),
    "several steps": ({"steps_per_execution": 4}, {}),
    "one step": ({}, {"epochs": 1, "batch_size": tiny.SAMPLES}),
    "validation split": ({"metrics": ["accuracy"]}, {"validation_split": 0.25, "sample_weight": WEIGHTS}),
    "two outputs": (
        {"net": _two_outputs, "loss": {"y": "mse", "z": "mae"}, "loss_weights": {"y": 1.0, "z": 0.3}},
        {"y": {"y": tiny.data()[1], "z": tiny.data()[1][:, :2]}},
    ),
}


def _check(gated: keras.Model, net: Callable[[], keras.Model] = tiny.network, rtol: float = 1e-4) -> None:
    assert tiny.is_within(gated, net)
    outputs, expected = (outputs_of(model, tiny.data()[0]) for model in (tfmcu_prune.strip(gated), gated))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(outputs, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_budget_holds(name: str) -> None:
    options, arguments = TRAININGS[name]
    arguments = dict(arguments)
    gated, x = tiny.gated(**options), tiny.data()[0]
    history = tiny.fit(gated, x, arguments.pop("y", tiny.data()[1]), **arguments)
    _check(gated, options.get("net", tiny.network))
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(name: str, policy: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates and masks are float32; a loss scale survives a cut."""
    policy(name)
    monkeypatch.setattr(shrinking._Relay, "_pays", tiny.always)
    for run in (keras.Model.fit, tfmcu_prune.fit):
        gated = tiny.gated(ADAM(0.01))
        tiny.fit(gated, run=run)
        _check(gated, rtol=0.03)
        assert isinstance(gated.optimizer, keras.optimizers.LossScaleOptimizer) == (name == "mixed_float16")
        assert {weight.dtype for weight in gated.trainable_weights} == {"float32"}


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.1, use_ema=True, ema_momentum=0.9), SGD(0.1, momentum=0.9, gradient_accumulation_steps=4), SGD(0.1)],
    ids=["averaged", "accumulated", "weighted"],
)
def test_cuts_change_nothing(optimizer: keras.Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averages are kept, and put into the model at the end alone; gradients are cut that wait to be applied."""
    monkeypatch.setattr(shrinking._Relay, "_pays", tiny.always)
    outputs = []
    for run in (keras.Model.fit, tfmcu_prune.fit):
        gated = tiny.gated(type(optimizer).from_config(optimizer.get_config()))
        tiny.fit(gated, run=run, sample_weight=WEIGHTS, callbacks=[tiny.pruning(0, 3)])
        _check(gated)
        outputs.append(outputs_of(gated, tiny.data()[0]))
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def _result(compiled: dict[str, Any], **fitted: Any) -> list[np.ndarray]:
    gated = tiny.gated(**{"optimizer": SGD(0.1), **compiled})
    tiny.fit(gated, **{"callbacks": [tiny.pruning(8, 8)], **fitted})
    assert tiny.is_within(gated)
    return gated.get_weights()


def test_what_comes_to_the_same() -> None:
    """Compiled or not, one step or two at a time, weights by class or by sample, a batch at once or in two halves."""
    labels, by_class = tiny.data()[1].argmax(1), {0: 1.0, 1: 0.3, 2: 2.0}
    by_sample = np.array([by_class[label] for label in labels])
    halves = {"optimizer": SGD(0.1, gradient_accumulation_steps=2)}
    half = {"batch_size": tiny.BATCH // 2, "callbacks": [tiny.pruning(16, 16)]}
    same = [
        [_result({}), _result({"jit_compile": True}), _result({"steps_per_execution": 2}), _result(halves, **half)],
        [_result({}, class_weight=by_class), _result({}, sample_weight=by_sample)],
    ]
    for first, *others in same:
        clock = next(i for i, weight in enumerate(first) if weight.shape == (2,))
        for other in others:
            for i, (a, b) in enumerate(zip(first, other, strict=True)):
                if i != clock:
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert any((a != b).any() for a, b in zip(same[0][0], same[1][0], strict=True))


class Counts(keras.Model):
    """A functional model with a step of its own."""

    steps = 0

    def train_step(self, *args: Any) -> Any:
        type(self).steps += 1
        return super().train_step(*args)


def test_a_train_step_of_ones_own() -> None:
    plain = tiny.network()
    with pytest.raises(ValueError, match=r"is a Counts with its own train_step, .* Put the gates in first"):
        tfmcu_prune.prunable(Counts(plain.inputs[0], plain.outputs[0]), budget_of(plain))
    gated = tfmcu_prune.prunable(plain, budget_of(plain))
    own = Counts(gated.input, gated.output)
    own.compile("sgd", "mse", jit_compile=False)
    tiny.fit(own)
    _check(own)
    assert Counts.steps
    assert type(tfmcu_prune.strip(own)) is type(gated)
    with pytest.raises(ValueError, match=r"has its own train_step, .* Use gated.fit"):
        tiny.fit(own, run=tfmcu_prune.fit)


class Taught(keras.Model):
    """A model that holds the gated one and its teacher."""

    def __init__(self, student: keras.Model, teacher: keras.Model) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        teacher.trainable = False

    def call(self, x: Any) -> Any:
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + keras.ops.mean(keras.ops.square(y_pred - self.teacher(x)))


def test_a_model_that_holds_the_gated_one() -> None:
    gated = tiny.gated()
    taught = Taught(gated, tiny.network())
    taught.compile("sgd", "mse", jit_compile=False)
    history = tiny.fit(taught)
    _check(gated)
    assert history.history["channels"][-1] == tfmcu_prune.get_mask(gated).sum()
    with pytest.raises(ValueError, match=r"Expected a model that tfmcu_prune\.prunable"):
        tfmcu_prune.strip(taught)


def test_a_loop_written_by_hand() -> None:
    """Keras' own list of callbacks is all that it takes, and the losses of the model, which hold the regularizer."""
    fitted, gated, optimizer = tiny.gated(SGD(0.1)), tiny.gated(), SGD(0.1)
    tiny.fit(fitted)
    x, y = tiny.data()
    given, logs = [tiny.pruning(), keras.callbacks.History()], dict[str, Any]()
    callbacks = keras.callbacks.CallbackList(given, model=gated, epochs=4, steps=tiny.STEPS)
    callbacks.on_train_begin()
    for epoch in range(4):
        callbacks.on_epoch_begin(epoch)
        for batch in range(tiny.STEPS):
            part = slice(batch * tiny.BATCH, (batch + 1) * tiny.BATCH)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((gated(x[part], training=True) - y[part]) ** 2) + sum(gated.losses)
            optimizer.apply(tape.gradient(loss, gated.trainable_variables), gated.trainable_variables)
            callbacks.on_train_batch_end(batch)
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()
    assert gated.history.history["channels"][-1] == tfmcu_prune.get_mask(gated).sum()
    for a, b in zip(fitted.get_weights(), gated.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_no_epoch_prunes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gated = tiny.gated()
    for run in (keras.Model.fit, tfmcu_prune.fit):
        tiny.fit(gated, run=run, epochs=0)
        assert tfmcu_prune.get_mask(gated).all()
    assert caplog.text.count("nothing was pruned, since the fit had no epoch") == 2
    tiny.fit(gated)
    _check(gated)


def test_a_stripped_model_is_pruned_again_to_a_tighter_budget() -> None:
    gated = tiny.gated()
    tiny.fit(gated)
    small = tfmcu_prune.strip(gated)
    tighter = Budget(macs=tiny.form(gated).macs * 2 // 3)
    again = tfmcu_prune.prunable(small, tighter)
    np.testing.assert_allclose(
        outputs_of(again, tiny.data()[0]), outputs_of(gated, tiny.data()[0]), rtol=1e-4, atol=1e-5
    )
    again.compile("sgd", "mse", jit_compile=False)
    tiny.fit(again)
    assert not over(tiny.form(again), tighter)
    assert len(tfmcu_prune.get_mask(again)) == tfmcu_prune.get_mask(gated).sum() > tfmcu_prune.get_mask(again).sum()
    small.compile("sgd", "mse")
    with pytest.raises(ValueError, match="without gates"):
        tiny.fit(small)
