"""Write small .tflite files by hand: any tensors and operators, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import flatbuffers

from tfmcu_prune.tflm.opcodes import BUILTIN_NAMES

CODES = {name: number for number, name in BUILTIN_NAMES.items()}
INT8, FLOAT = 9, 0


@dataclass
class Tensor:
    """A tensor; `data` makes it a constant, `scales` > 0 gives it quantization parameters, each `scale`."""

    shape: Sequence[int]
    type: int = INT8
    data: bytes = b""
    scales: int = 1
    buffer: int | None = None
    variable: bool = False
    name: str = ""
    scale: float = 0.5


@dataclass
class Graph:
    """A subgraph and its operators (name, inputs, outputs); "CUSTOM:name" is a custom one."""

    tensors: list[Tensor]
    operators: list[tuple[str, Sequence[int], Sequence[int]]]
    inputs: Sequence[int] = (0,)
    outputs: Sequence[int] = ()
    metadata: dict[str, bytes] = field(default_factory=dict)


def _vector(builder: flatbuffers.Builder, values: Sequence[int], kind: str = "Int32", width: int = 4) -> int:
    builder.StartVector(width, len(values), width)
    for value in reversed(values):
        getattr(builder, f"Prepend{kind}")(value)
    return builder.EndVector()


def _offsets(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return builder.EndVector()


def _table(builder: flatbuffers.Builder, fields: dict[int, tuple[str, object]]) -> int:
    builder.StartObject(max(fields, default=0) + 1)
    for number, (kind, value) in fields.items():
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
        else:
            getattr(builder, f"Prepend{kind}Slot")(number, value, None)
    return builder.EndObject()


def _buffer(builder: flatbuffers.Builder, data: bytes) -> int:
    return _table(builder, {0: ("offset", builder.CreateByteVector(data))} if data else {})


def _tensor(builder: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    fields: dict[int, tuple[str, object]] = {1: ("Int8", tensor.type), 2: ("Uint32", buffer)}
    fields[0] = ("offset", _vector(builder, tensor.shape))
    if tensor.scales:
        scale = _vector(builder, [tensor.scale] * tensor.scales, "Float32")
        zero = _vector(builder, [0] * tensor.scales, "Int64", 8)
        fields[4] = ("offset", _table(builder, {2: ("offset", scale), 3: ("offset", zero)}))
    if tensor.name:
        fields[3] = ("offset", builder.CreateString(tensor.name))
    if tensor.variable:
        fields[5] = ("Bool", True)
    return _table(builder, fields)


def _code(builder: flatbuffers.Builder, name: str, custom: str = "") -> int:
    text: dict[int, tuple[str, object]] = {1: ("offset", builder.CreateString(custom))} if custom else {}
    return _table(builder, {0: ("Int8", min(CODES[name], 127)), **text, 3: ("Int32", CODES[name])})


def build(graph: Graph) -> bytes:
    """Return the .tflite file of a graph."""
    builder = flatbuffers.Builder(1024)
    names = list(dict.fromkeys(name for name, _, _ in graph.operators))
    codes = [_code(builder, *name.split(":", 1)) for name in names]
    buffers, tensors = [_buffer(builder, b"")], []
    for tensor in graph.tensors:
        number = tensor.buffer
        if number is None:
            buffers.append(_buffer(builder, tensor.data))
            number = len(buffers) - 1
        tensors.append(_tensor(builder, tensor, number))
    operators = []
    for name, inputs, outputs in graph.operators:
        fields = {1: ("offset", _vector(builder, inputs)), 2: ("offset", _vector(builder, outputs))}
        operators.append(_table(builder, {0: ("Uint32", names.index(name)), **fields}))
    entries = []
    for name, payload in graph.metadata.items():
        buffers.append(_buffer(builder, payload))
        text = builder.CreateString(name)
        entries.append(_table(builder, {0: ("offset", text), 1: ("Uint32", len(buffers) - 1)}))
    subgraph = _table(
        builder,
        {
            0: ("offset", _offsets(builder, tensors)),
            1: ("offset", _vector(builder, graph.inputs)),
            2: ("offset", _vector(builder, graph.outputs)),
            3: ("offset", _offsets(builder, operators)),
        },
    )
    root = {
        0: ("Uint32", 3),
        1: ("offset", _offsets(builder, codes)),
        2: ("offset", _offsets(builder, [subgraph])),
        4: ("offset", _offsets(builder, buffers)),
    }
    if entries:
        root[6] = ("offset", _offsets(builder, entries))
    builder.Finish(_table(builder, root), b"TFL3")
    return bytes(builder.Output())


def chain(sizes: Sequence[int], edges: Sequence[tuple[Sequence[int], Sequence[int]]]) -> bytes:
    """Return a graph of ADD_N operators over 1-D int8 tensors; the last tensors that nobody reads are outputs."""
    tensors = [Tensor((size,)) for size in sizes]
    read = {index for inputs, _ in edges for index in inputs}
    written = {index for _, outputs in edges for index in outputs}
    return build(
        Graph(
            tensors,
            [("CONCATENATION", inputs, outputs) for inputs, outputs in edges],
            inputs=[i for i in range(len(sizes)) if i not in written],
            outputs=[i for i in sorted(written) if i not in read],
        )
    )
