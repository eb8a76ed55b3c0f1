"""Generated C++: safe names, exact contents, and sources that compilers take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tflm_build import Graph, Tensor, build
from tflm_compilers import check_against_stubs, compile_for_arm

from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.firmware.names import identifier, registration
from tfmcu_prune.firmware.sources import file_names, model_files
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.kernels import KERNELS

# What MicroMutableOpResolver offers: tensorflow/tflite-micro 90b983c2, micro_mutable_op_resolver.h
METHODS = """
Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs BroadcastTo CallOnce
Cast Ceil CircularBuffer Concatenation Conv2D Cos CumSum Decode Delay DepthToSpace DepthwiseConv2D Dequantize Div
DynamicUpdateSlice EmbeddingLookup Elu Equal Exp ExpandDims Fill Floor FloorDiv FloorMod FullyConnected Gather GatherNd
Greater GreaterEqual HardSwish If L2Normalization L2Pool2D LeakyRelu Less LessEqual Log LogicalAnd LogicalNot LogicalOr
Logistic LogSoftmax Maximum MaxPool2D MirrorPad Mean Minimum Mul Neg NotEqual Pack Pad PadV2 Prelu Quantize ReadVariable
ReduceAll ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt SelectV2
Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split SplitV Squeeze Sqrt Square SquaredDifference StridedSlice Sub
Sum Svdf Tanh TransposeConv Transpose Unpack UnidirectionalSequenceLSTM VarHandle While ZerosLike
""".split()  # noqa: SIM905

NASTY = [
    '"; system("rm -rf /"); //',
    "../../etc/passwd",
    "a\nb",
    "*/ #include </etc/passwd> /*",
    "int",
    "",
    "ä",
    "9 lives",
    "\\",
]


@pytest.fixture
def data() -> bytes:
    return build(Graph([Tensor((1, 64)), Tensor((1, 64))], [("RELU", [0], [1])], outputs=[1]))


@pytest.mark.parametrize("operator", sorted(KERNELS))
def test_every_kernel_of_tflm_is_registered_by_a_method_that_there_is(operator: str) -> None:
    assert registration(operator).removeprefix("Add") in METHODS


@given(st.text())
def test_any_name_becomes_an_identifier(text: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,56}", identifier(text))
    assert identifier(identifier(text)) == identifier(text)


@pytest.mark.parametrize("name", NASTY)
def test_nothing_of_a_name_gets_through(name: str, data: bytes) -> None:
    files = model_files(data, name)
    assert set(files) == set(file_names(name))
    for file, content in files.items():
        assert re.fullmatch(r"[a-z0-9_]+\.(tflite|cc|h|json)", file)
        if not file.endswith(".tflite"):
            assert b"system" not in content.replace(identifier(name).encode(), b"")
            assert b"/etc" not in content


def test_sources_compile_and_hold_the_model(data: bytes, tmp_path: Path) -> None:
    for file, content in model_files(data, "kws").items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "use.cc").write_text(
        '#include "arena.h"\n#include "kws.h"\nalignas(16) unsigned char a[kws::kArenaSize];\n'
    )
    compile_for_arm(tmp_path / "use.cc", tmp_path / "use.o")
    contents = compile_for_arm(tmp_path / "kws.cc", tmp_path / "kws.o")
    assert data in contents
    (tmp_path / "resolver.cc").write_text(
        '#include "op_resolver.h"\nTfLiteStatus f(kws::OpResolver& r) { return kws::RegisterOperators(r); }\n'
    )
    check_against_stubs(tmp_path / "resolver.cc")


def test_the_resolver_has_each_operator_once(shared_model) -> None:
    data = shared_model("mbv2_like")
    text = model_files(data, "m")["op_resolver.h"].decode()
    added = re.findall(r"resolver\.(\w+)\(\)", text)
    names = {operator.name for operator in footprint(data).operators}
    assert len(added) == len(set(added)) == len(names)
    assert f"MicroMutableOpResolver<{len(names)}>" in text


def test_the_arena_is_the_one_of_the_target(data: bytes) -> None:
    for target in ("cortex-m4", "esp32"):
        fp = footprint(data, target=target)
        text = model_files(data, "m", target=target)["arena.h"].decode()
        assert f"kArenaSize = {fp.arena};" in text
        assert f"on {target} with {fp.kernels} kernels" in text
        assert "LOWER BOUND" not in text


def test_an_operator_that_tflm_lacks_is_refused(data: bytes) -> None:
    custom = build(Graph([Tensor((1, 4)), Tensor((1, 4))], [("ATAN2", [0, 0], [1])], outputs=[1]))
    with pytest.raises(InvalidModel, match=r"operators that TensorFlow Lite Micro has\. Received: 'ATAN2'"):
        model_files(custom, "m")


def test_the_card_describes_inputs_and_outputs(data: bytes) -> None:
    card = json.loads(model_files(data, "m", labels=[str(i) for i in range(64)], versions={"keras": "3"})["model.json"])
    assert card["inputs"] == [{"name": "", "shape": [1, 64], "type": "int8", "scale": 0.5, "zero_point": 0}]
    assert card["labels"][63] == "63"
    assert card["versions"]["keras"] == "3"
    with pytest.raises(ValueError, match=r"has values, 64\. Received: 1"):
        model_files(data, "m", labels=["one"])
