from __future__ import annotations

import keras
import nets
import numpy as np
import pytest

import tfmcu_prune
from tfmcu_prune import Budget, BudgetError, UnsupportedLayer
from tfmcu_prune.gates import runs_of, take_runs


def test_the_gates_start_open() -> None:
    gated = tfmcu_prune.prunable(nets.plain())
    assert tfmcu_prune.get_mask(gated).tolist() == [True] * 14


def test_the_model_is_not_changed() -> None:
    model = nets.residual()
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    config = model.get_config()
    tfmcu_prune.prunable(model)
    assert model.get_config() == config
    assert all(np.array_equal(a, keras.ops.convert_to_numpy(b)) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.parametrize(
    "mask", [np.ones(13, bool), np.ones(14), np.ones((14, 1), bool), [1] * 14], ids=["short", "float", "2-D", "list"]
)
def test_a_mask_of_another_form(mask) -> None:
    with pytest.raises(ValueError, match="Expected a bool mask of shape"):
        tfmcu_prune.set_mask(tfmcu_prune.prunable(nets.plain()), mask)


def test_a_mask_that_empties_a_group() -> None:
    mask = np.arange(14) >= 6
    with pytest.raises(ValueError, match="leaves 0 of the 6 channels of the group 'conv2d"):
        tfmcu_prune.set_mask(tfmcu_prune.prunable(nets.plain()), mask)


def test_an_impossible_budget_names_operator_and_group() -> None:
    model = nets.depthwise()
    for budget in (Budget(arena=1000), Budget(flash=1000), Budget(macs=1000)):
        with pytest.raises(BudgetError, match=r"cannot be met.*the operator '(conv2d|dense).*group 'conv2d"):
            tfmcu_prune.prunable(model, budget)


def test_what_is_no_model_is_refused() -> None:
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="Expected a Keras 3 model"):
        tfmcu_prune.prunable("model.keras")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not built"):
        tfmcu_prune.prunable(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="received a subclassed one"):
        tfmcu_prune.prunable(Subclassed())
    with pytest.raises(ValueError, match="Expected a Budget"):
        tfmcu_prune.prunable(nets.plain(), {"arena": 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="already has gates"):
        tfmcu_prune.prunable(tfmcu_prune.prunable(nets.plain()))


def test_a_layer_without_a_rule_is_named() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: 2 * x, name="twice")])
    with pytest.raises(UnsupportedLayer, match=r"'twice' of type Lambda.*register_rule.*\(None, 8, 8, 3\)"):
        tfmcu_prune.prunable(model)


def test_channels_first_and_open_shapes_are_refused() -> None:
    first = keras.Sequential([keras.Input((3, 8, 8)), keras.layers.Conv2D(4, 3, data_format="channels_first")])
    with pytest.raises(UnsupportedLayer, match="channels_first"):
        tfmcu_prune.prunable(first)
    with pytest.raises(ValueError, match="sizes that are all known"):
        tfmcu_prune.prunable(keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)]))


def test_runs() -> None:
    labels = np.array([2, 3, 4, 9, 9, 0, 1, 8])
    assert runs_of(labels, 9) == [[2, 5], [9, 11], [0, 2], [8, 9]]
    gates = keras.ops.convert_to_tensor(np.arange(9.0, dtype="float32"))
    taken = keras.ops.convert_to_numpy(take_runs(gates, runs_of(labels, 9)))
    assert taken.tolist() == [2, 3, 4, 1, 1, 0, 1, 8]


def test_the_gradient_of_a_gate_is_that_of_the_activation() -> None:
    """dL/dgate_c by autodiff through the kernels, against central differences."""
    gated = tfmcu_prune.prunable(nets.concat_add())
    inputs = np.random.default_rng(0).random((4, 8, 8, 2)).astype("float32")
    gates = gated.get_layer("channel_gates")

    def loss(offset: np.ndarray) -> float:
        gates.offset.assign(offset)
        return float(keras.ops.convert_to_numpy(gated(inputs)).astype("float64").sum())

    count, step = gates.count, 1e-2
    numeric = [(loss(step * row) - loss(-step * row)) / (2 * step) for row in np.eye(count, dtype="float32")]
    gates.offset.assign(np.zeros(count))
    np.testing.assert_allclose(_gradient(gated, inputs, gates.offset), numeric, rtol=2e-2, atol=2e-3)


def _gradient(model: keras.Model, inputs: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """One step of gradient descent with rate 1 moves a variable by its gradient, on any backend."""
    before = keras.ops.convert_to_numpy(variable)
    model.compile(keras.optimizers.SGD(1.0), lambda _, output: keras.ops.sum(output))
    model.fit(inputs, np.zeros((len(inputs), 3)), batch_size=len(inputs), shuffle=False, verbose=0)
    return len(inputs) * (before - keras.ops.convert_to_numpy(variable)) / len(inputs)
