from __future__ import annotations

from pathlib import Path

import nets
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from networks import inputs_for, randomize

import tfmcu_prune
from tfmcu_prune.tflm import run
from tfmcu_prune.tflm.compact import compact
from tfmcu_prune.tflm.schema import read_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tflm_models"
MODELS = sorted(SHARED.glob("*.tflite"))
NOT_ON_LITERT = {"acts_mix", "tflm_keyword_scrambled_8bit"}  # ELU has no reference kernel; SVDF aborts, as it came too


def litert(data: bytes, seed: int = 0) -> list[np.ndarray]:
    """Outputs of LiteRT's reference kernels for random int8 inputs."""
    interpreter = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], rng.integers(-128, 128, detail["shape"]).astype(detail["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.skipif(not MODELS, reason="../shared/tflm_models is not there")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_same_outputs_in_fewer_bytes(path: Path) -> None:
    data = path.read_bytes()
    small = compact(data)
    before, after = read_model(data).main, read_model(small).main
    assert len(small) < len(data)
    assert [o.name for o in after.operators] == [o.name for o in before.operators]
    assert [_facts(t) for t in after.tensors] == [_facts(t) for t in before.tensors]
    if path.stem not in NOT_ON_LITERT:
        assert all(np.array_equal(a, b) for a, b in zip(litert(data), litert(small), strict=True))
    inputs = [np.random.default_rng(1).random((3, *before.tensors[i].shape[1:]), np.float32) for i in before.inputs]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    for a, b in zip(_list(run(data, inputs)), _list(run(small, inputs)), strict=True):
        assert np.array_equal(a, b)


def _facts(tensor) -> tuple:
    return tensor.shape, tensor.type, tensor.constant, tensor.scale, tensor.zero_point


def _list(outputs) -> list[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def test_twice_is_once() -> None:
    model = randomize(nets.residual())
    data = tfmcu_prune.convert(model, inputs_for(model), optimize_arena=False)
    assert compact(data) == data


def test_rename_and_order() -> None:
    model = randomize(nets.two_in_two_out())
    data = tfmcu_prune.convert(model, inputs_for(model), optimize_arena=False)
    renamed = compact(data, lambda name: f"my_{name}", inputs=["right", "left"].index)
    graph = read_model(renamed).main
    assert [graph.tensors[i].name for i in graph.inputs] == ["my_right", "my_left"]
    left, right = inputs_for(model)
    for a, b in zip(run(data, [left, right]), run(renamed, [right, left]), strict=True):
        assert np.array_equal(a, b)
