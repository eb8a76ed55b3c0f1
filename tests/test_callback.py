from __future__ import annotations

import keras
import nets
import numpy as np
import pytest
import tensorflow as tf

import tfmcu_prune
from tfmcu_prune import Budget, BudgetError, PruneCallback
from tfmcu_prune.budget import Resources
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.gates import gates_of
from tfmcu_prune.resources import evaluate

SAMPLES, BATCH = 64, 8


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, SAMPLES)
    x = rng.normal(0, 0.3, (SAMPLES, 8, 8, 3)) + np.eye(3)[y][:, None, None, :]
    return x.astype("float32"), y


def budget_of(model: keras.Model, share: float = 0.7) -> Budget:
    """A budget between what the model costs and its floor."""
    forms = resource_model(channel_groups(model))
    full, least = evaluate(forms, forms.full()), evaluate(forms, np.ones(len(forms.groups), np.int64))
    mix = {k: int(share * getattr(least, k) + (1 - share) * getattr(full, k)) for k in ("arena", "flash", "macs")}
    return Budget(**mix)


def fit(model: keras.Model, budget: Budget, data, epochs: int = 3, callback: PruneCallback | None = None, **kwargs):
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(model, budget)
    gated.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    callbacks = [callback or PruneCallback(), *kwargs.pop("callbacks", ())]
    arguments = data if isinstance(data, tuple) else (data,)
    kwargs |= {"batch_size": BATCH} if isinstance(data, tuple) else {"shuffle": False}
    history = gated.fit(*arguments, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)
    return gated, history


def check_budget(gated: keras.Model, budget: Budget, calibration: np.ndarray) -> None:
    footprint = tfmcu_prune.footprint(tfmcu_prune.convert(tfmcu_prune.strip(gated), calibration))
    footprint.require(budget)


def test_the_budget_holds_and_is_used(data) -> None:
    budget = budget_of(nets.residual())
    gated, history = fit(nets.residual(), budget, data)
    check_budget(gated, budget, data[0])
    assert 0 < tfmcu_prune.get_mask(gated).sum() < len(tfmcu_prune.get_mask(gated))
    for name in ("arena", "flash", "macs", "channels"):
        values = history.history[name]
        assert values == sorted(values, reverse=True)
        assert values[-1] == values[-2]  # frozen at half of the training


def test_a_budget_is_filled_where_the_file_jumps(data) -> None:
    """As where a memory plan is written into the file of one mask and not of the next smaller one."""
    forms = resource_model(channel_groups(nets.residual()))
    budget = Budget(flash=budget_of(nets.residual()).flash)

    def measure(gated: keras.Model) -> Resources:
        form = evaluate(forms, forms.sizes(tfmcu_prune.get_mask(gated)))
        return Resources(form.arena, form.flash + (form.flash > 0.95 * budget.flash) * budget.flash // 7, form.macs)

    gated, _ = fit(nets.residual(), budget, data, 2, PruneCallback(measure=measure))
    assert 0.9 * budget.flash < measure(gated).flash <= budget.flash


@pytest.mark.parametrize("name", ["arena", "flash", "macs"])
def test_one_resource_alone(name: str, data) -> None:
    budget = Budget(**{name: getattr(budget_of(nets.residual()), name)})
    gated, _ = fit(nets.residual(), budget, data, epochs=2)
    check_budget(gated, budget, data[0])


def test_no_budget_prunes_nothing(data) -> None:
    gated, history = fit(nets.residual(), Budget(), data, epochs=1)
    assert tfmcu_prune.get_mask(gated).all()
    assert history.history["channels"] == [20]


def test_a_fit_that_stops_early_still_meets_the_budget(data, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    budget = budget_of(nets.residual())
    caplog.set_level("WARNING", logger="absl")
    gated, _ = fit(nets.residual(), budget, data, epochs=20, callbacks=[Stop()])
    check_budget(gated, budget, data[0])
    gone = int((~tfmcu_prune.get_mask(gated)).sum())
    assert f"ended at step 8, before the mask was to be frozen (at step 80), so {gone} channels" in caplog.text


@pytest.mark.parametrize("first", [True, False])
def test_restored_weights_do_not_bring_channels_back(data, first: bool) -> None:
    """EarlyStopping puts the first epoch's weights back, mask included, before or after our on_train_end."""
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=10, restore_best_weights=True)
    budget = budget_of(nets.residual())
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(nets.residual(), budget)
    gated.compile("adam", "sparse_categorical_crossentropy")
    callbacks = [stop, PruneCallback(begin=8, end=16)]
    gated.fit(*data, batch_size=BATCH, epochs=3, verbose=0, callbacks=callbacks if first else callbacks[::-1])
    check_budget(gated, budget, data[0])


def test_explicit_steps(data) -> None:
    seen: list[int] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(int(tfmcu_prune.get_mask(self.model).sum()))

    budget = budget_of(nets.residual())
    fit(nets.residual(), budget, data, epochs=2, callback=PruneCallback(begin=4, end=10), callbacks=[Watch()])
    assert seen[:3] == [20] * 3
    assert seen[9] < 20
    assert len(set(seen[9:])) == 1


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # how Keras finds the length out
def test_data_that_does_not_tell_its_length(data) -> None:
    def generator():
        yield from zip(data[0], data[1], strict=True)

    signature = (tf.TensorSpec((8, 8, 3), tf.float32), tf.TensorSpec((), tf.int64))
    stream = tf.data.Dataset.from_generator(generator, output_signature=signature).batch(BATCH)
    budget = budget_of(nets.residual())
    gated, _ = fit(nets.residual(), budget, stream, epochs=4)
    check_budget(gated, budget, data[0])
    with pytest.raises(ValueError, match="does not tell its number of steps"):
        fit(nets.residual(), budget, stream, epochs=1)


def test_the_same_seed_gives_the_same_mask(data) -> None:
    budget, masks = budget_of(nets.residual()), []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        masks.append(tfmcu_prune.get_mask(fit(nets.residual(), budget, data, epochs=2)[0]))
    assert np.array_equal(*masks)


def test_wrong_use(data) -> None:
    with pytest.raises(ValueError, match="0 <= begin <= end"):
        PruneCallback(begin=5, end=3)
    model = nets.residual()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="without gates"):
        model.fit(*data, verbose=0, callbacks=[PruneCallback()])


def test_a_file_that_cannot_come_within_the_budget(data) -> None:
    """The closed form can be below the file: then the end of training says so, of the budget that was given."""
    forms = resource_model(channel_groups(nets.residual()))
    floor = evaluate(forms, np.ones(len(forms.groups), np.int64)).flash
    budget = Budget(flash=floor + 20)

    def larger(gated: keras.Model) -> Resources:
        real = evaluate(forms, forms.sizes(tfmcu_prune.get_mask(gated)))
        return Resources(real.arena, real.flash + 40, real.macs)

    with pytest.raises(BudgetError, match=rf"{floor + 20}.* it takes .*flash={floor + 40}") as error:
        fit(nets.residual(), budget, data, epochs=2, callback=PruneCallback(measure=larger))
    assert repr(budget) in str(error.value)


def recurrent() -> keras.Model:
    """New, but with biases of zeros and ones, one constant bias, and statistics of the data."""
    adapted = keras.layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(size=(20, 6, 5)))
    head = keras.layers.Dense(3, bias_initializer=keras.initializers.Constant(-2.2))
    return keras.Sequential([keras.Input((6, 5)), adapted, keras.layers.LSTM(8), head])


def trained() -> keras.Model:
    model = nets.residual()
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(0).normal(size=(8, 8, 8, 3)), np.eye(3)[[0] * 8], verbose=0)
    return model


def frozen() -> keras.Model:
    model = trained()
    model.trainable = False
    return model


@pytest.mark.parametrize(
    ("make", "first", "last"), [(nets.residual, 8, 40), (recurrent, 8, 40), (trained, 0, 24), (frozen, 0, 24)]
)
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_trained_network_is_pruned_earlier(make, first: int, last: int, through_a_file: bool, tmp_path) -> None:
    model = make()
    gated = tfmcu_prune.prunable(model, budget_of(model, 0.5))
    if through_a_file:
        gated.save(tmp_path / "gated.keras")
        gated = keras.saving.load_model(tmp_path / "gated.keras")
    callback = PruneCallback(measure=lambda _: Resources(0, 0, 0))
    callback.set_model(gated)
    callback.set_params({"epochs": 10, "steps": 8})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    due = [step for step in range(1, 81) if callback.is_due(step - 1)]
    assert due[0] == max(first, 1)
    for epoch, batch in np.ndindex(10, 8):
        if batch == 0:
            callback.on_epoch_begin(epoch)
        before = int(gates_of(gated).frozen)
        callback.on_train_batch_end(batch)
        if int(gates_of(gated).frozen) > before:
            assert 8 * epoch + batch + 1 == last
    assert int(gates_of(gated).frozen)


def test_without_a_length_the_pruning_begins_at_a_fifth_of_its_end() -> None:
    gated = tfmcu_prune.prunable(nets.residual(), budget_of(nets.residual()))
    for end, first in ((100, 20), (4, 1)):
        callback = PruneCallback(None, end)
        callback.set_model(gated)
        callback.set_params({"epochs": 3, "steps": None})
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        assert not callback.is_due(first - 2)
        assert callback.is_due(first - 1)
    assert tfmcu_prune.get_mask(gated).all()
