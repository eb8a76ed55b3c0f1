"""Inference and measurement on the real TFLM, the tflite-micro wheel."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tflm_build import FLOAT, Graph, Tensor, build

from tfmcu_prune import Budget
from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.tflm import measure, optimize, run
from tfmcu_prune.tflm.footprint import footprint

pytest.importorskip("tflite_micro", reason="pip install --pre tflite-micro")

RELU = build(Graph([Tensor((1, 4)), Tensor((1, 4))], [("RELU", [0], [1])], outputs=[1]))  # scale 0.5, zero point 0
FLOAT_RELU = build(
    Graph([Tensor((1, 4), FLOAT, scales=0), Tensor((1, 4), FLOAT, scales=0)], [("RELU", [0], [1])], outputs=[1])
)


def test_the_wheel_uses_what_was_predicted(model: bytes) -> None:
    fp = footprint(model, target="x86-64")
    assert measure(model) == (fp.head, fp.tail, fp.arena_used)


def test_quantization_rounds_away_from_zero_and_clips() -> None:
    x = np.array([[0.24, 0.25, 0.75, 1e9], [-0.25, -1e9, 0.5 * 0.49999997, 63.6]], "float32")
    assert run(RELU, x).tolist() == [[0.0, 0.5, 1.0, 63.5], [0.0, 0.0, 0.0, 63.5]]
    assert run(RELU, x).dtype == np.float32


def test_a_float_model_is_not_quantized() -> None:
    x = np.array([[0.1, -0.2, 3e7, 0.0]], "float32")
    assert (run(FLOAT_RELU, x) == np.maximum(x, 0)).all()


def test_a_sine(shared_model) -> None:
    x = np.linspace(0, 6.28, 200, dtype="float32").reshape(-1, 1)
    assert np.abs(run(shared_model("tflm_hello_world_int8"), x) - np.sin(x)).max() < 0.2


def test_several_inputs_and_outputs(shared_model) -> None:
    from tfmcu_prune.tflm.schema import read_model

    model = shared_model("two_in_two_out")
    graph = read_model(model).main
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(3, *graph.tensors[i].shape[1:])) for i in graph.inputs]
    as_list = run(model, xs)
    as_dict = run(model, {graph.tensors[i].name: x for i, x in zip(graph.inputs, xs, strict=True)})
    assert [y.shape for y in as_list] == [(3, 1), (3, 3)]
    assert all((a == b).all() for a, b in zip(as_list, as_dict, strict=True))
    with pytest.raises(ValueError, match=r"one array for each input .* Expected: 2"):
        run(model, xs[0])
    with pytest.raises(ValueError, match="same number of samples"):
        run(model, [xs[0], xs[1][:1]])
    with pytest.raises(ValueError, match=r"one array for each input .* Received: \['a'\]"):
        run(model, {"a": xs[0]})


def test_state_starts_anew_with_each_sample(shared_model) -> None:
    model = shared_model("tflm_mnist_lstm_int8")
    x = np.random.default_rng(0).normal(size=(4, 28, 28)).astype("float32")
    together = run(model, x)
    assert all((together[i] == run(model, x[i : i + 1])[0]).all() for i in range(4))


@pytest.mark.parametrize("name", ["inception_concat", "conv1d_net", "two_in_two_out"])
def test_optimize_keeps_the_outputs_and_the_prediction(shared_model, name: str) -> None:
    from tfmcu_prune.tflm import plan, reorder
    from tfmcu_prune.tflm.schema import read_model

    model = shared_model(name)
    graph = read_model(model).main
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(2, *graph.tensors[i].shape[1:])) for i in graph.inputs]
    expected = run(model, xs)
    for change in (reorder, plan, optimize):
        changed = change(model)
        received = run(changed, xs)
        pairs = [(expected, received)] if isinstance(expected, np.ndarray) else zip(expected, received, strict=True)
        assert all((a == b).all() for a, b in pairs)
        fp, before = footprint(changed), footprint(model)
        assert fp.arena <= before.arena
        x86 = footprint(changed, target="x86-64")
        assert measure(changed) == (x86.head, x86.tail, x86.arena_used)
        assert change(changed) == changed


def test_optimize_gains(shared_model) -> None:
    model = shared_model("inception_concat")
    before, after = footprint(model), footprint(optimize(model))
    assert after.arena + after.flash < before.arena + before.flash
    assert after.arena < 0.9 * before.arena


def test_optimize_leaves_a_budget_alone(shared_model) -> None:
    model = shared_model("inception_concat")
    assert len(optimize(model)) > len(model)
    assert len(optimize(model, budget=Budget(flash=len(model)))) == len(model)
    assert optimize(model, budget=Budget(flash=1)) == optimize(model)


def test_wrong_inputs() -> None:
    with pytest.raises(ValueError, match=r"an array of shape \('n', 4\). Received: shape \(2, 5\)"):
        run(RELU, np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"must be finite. Received: 1 values"):
        run(RELU, np.array([[0, np.nan, 0, 0]]))
    with pytest.raises(ValueError, match="must hold numbers"):
        run(RELU, np.array([["a"] * 4]))
    with pytest.raises(InvalidModel):
        run(b"nothing", np.zeros((1, 4)))


def test_tflm_refuses() -> None:
    tile = build(Graph([Tensor((1, 4)), Tensor((1, 4))], [("TILE", [0], [1])], outputs=[1]))
    with pytest.raises(ValueError, match=r"does not start this model .* TILE"):
        run(tile, np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"does not run this model. It said: .*TILE"):
        measure(tile)


def test_the_wheel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro", None)
    with pytest.raises(ImportError, match="pip install --pre tflite-micro"):
        run(RELU, np.zeros((1, 4)))
