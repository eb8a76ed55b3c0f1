"""Files that are not what they claim: always InvalidModel, with what is wrong and where."""

from __future__ import annotations

import struct

import pytest
from tflm_build import FLOAT, Graph, Tensor, build

from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.tflm.edit import permute_operators
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.schema import PLAN_NAME, read_model


def graph(**changes: object) -> Graph:
    """A RELU of eight numbers, with changes."""
    fields = {
        "tensors": [Tensor((1, 8)), Tensor((1, 8))],
        "operators": [("RELU", [0], [1])],
        "outputs": [1],
        **changes,
    }
    return Graph(**fields)  # type: ignore[arg-type]


HOSTILE = {
    "cycle": (graph(operators=[("ADD", [0, 2], [1]), ("RELU", [1], [2])], tensors=[Tensor((8,))] * 3), "form a cycle"),
    "no producer": (graph(tensors=[Tensor((8,))] * 3, operators=[("ADD", [0, 2], [1])]), "reads tensor 2 before"),
    "written twice": (graph(operators=[("RELU", [0], [1]), ("RELU", [0], [1])]), "already defines"),
    "output that nobody writes": (graph(operators=[("RELU", [0], [])]), "outputs names tensor 1"),
    "tensor index": (graph(operators=[("RELU", [7], [1])]), r"inputs\[0\] must be a tensor, -1 to 1. Received: 7"),
    "missing buffer": (graph(tensors=[Tensor((8,), buffer=9), Tensor((8,))]), "buffer must be below 2"),
    "negative shape": (graph(tensors=[Tensor((1, -8)), Tensor((8,))]), "no dynamic tensors"),
    "huge shape": (graph(tensors=[Tensor((2**31 - 1, 2**31 - 1)), Tensor((8,))]), "below 2\\^31 bytes"),
    "rank": (graph(tensors=[Tensor((1,) * 40), Tensor((8,))]), "at most 16 axes"),
    "short constant": (graph(tensors=[Tensor((8,), data=b"abc"), Tensor((8,))]), "needs 8 bytes of constant data"),
    "string tensor": (graph(tensors=[Tensor((8,), type=5), Tensor((8,))]), "type that TFLM has a size for"),
    "no inputs": (graph(operators=[("CONV_2D", [], [1])]), "must have an input 1"),
    "wrong rank": (graph(operators=[("CONV_2D", [0, 0], [1])]), "needs tensor 0 to have 4 axes"),
    "plan": (graph(metadata={PLAN_NAME: struct.pack("<4i", 1, 0, 9, 0)}), "third the number of tensors"),
    "plan offset": (graph(metadata={PLAN_NAME: struct.pack("<5i", 1, 0, 2, -9, 0)}), "offsets from -1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs(name: str) -> None:
    bad, message = HOSTILE[name]
    with pytest.raises(InvalidModel, match=message):
        footprint(build(bad))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must hold 'TFL3' at byte 4"),
        (b"not a model at all", "must hold 'TFL3'"),
        (b"PK\x03\x04 model.keras", "look like a Keras model: convert it first"),
        (struct.pack("<I4s", 2**31, b"TFL3"), "points outside the file"),
        (struct.pack("<I4s", 8, b"TFL3"), "points outside the file"),
        (struct.pack("<I4si", 8, b"TFL3", -4) + b"\3\0\3\0", "even size"),
    ],
)
def test_files_that_are_none(data: bytes, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read_model(data)


def test_every_truncation_is_refused() -> None:
    data = build(graph())
    for size in range(0, len(data) - 8, 3):
        with pytest.raises(InvalidModel):
            footprint(data[:size])


def test_a_lying_vector_length() -> None:
    data = bytearray(build(graph()))
    at = data.index(struct.pack("<3I", 2, 1, 8))  # the shape (1, 8)
    struct.pack_into("<I", data, at, 2**31)
    with pytest.raises(InvalidModel, match=r"shape claims 2147483648 elements"):
        read_model(bytes(data))


def test_many_tables_on_one_vector_are_refused() -> None:
    operators = [("RELU", [0] * 4000, []), *[("RELU", [0], [])] * 4000]
    data = build(graph(operators=operators, outputs=[]))
    hostile = permute_operators(data, [0] * len(operators))  # every entry points at the first table
    with pytest.raises(InvalidModel, match="overlap each other"):
        footprint(hostile)


def test_as_many_tensors_as_are_allowed() -> None:
    data = build(graph(tensors=[Tensor((8,), scales=0)] * 2500))
    assert footprint(data).head == 16 * 2498  # nobody writes or reads them, and TFLM plans them all the same
    with pytest.raises(InvalidModel, match="at most 5000 tensors"):
        footprint(build(graph(tensors=[Tensor((8,), scales=0)] * 5001)))


def test_valid_corners() -> None:
    assert footprint(build(graph())).arena > 0
    scalar = graph(tensors=[Tensor((), type=FLOAT, scales=0), Tensor((0,), scales=0)], operators=[("RELU", [0], [1])])
    assert footprint(build(scalar)).head == 16
    assert footprint(build(graph(operators=[], outputs=[0]))).operators == ()
