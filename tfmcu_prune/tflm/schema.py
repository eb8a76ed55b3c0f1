"""Read a .tflite file into plain values, trusting nothing in it.

The reader needs neither flatbuffers nor TensorFlow, so that an estimate starts in milliseconds. Every offset,
count and index is checked before it is used: whatever the bytes are, the result is a `Model` or an `InvalidModel`
that says what is wrong and where.

Source: tensorflow/tflite-micro 90b983c2, tensorflow/compiler/mlir/lite/schema/schema.fbs (field numbers, types).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from ..errors import InvalidModel
from .flatbuffer import Reader, Table
from .opcodes import BUILTIN_NAMES, OPTION_FIELDS, TYPES

PLAN_NAME = "OfflineMemoryAllocation"
_MAX_BYTES = 2**31 - 1
_MAX_RANK = 16
_MAX_TENSORS = 5_000  # TFLM's planner sorts them by bubble sort and takes 64 bytes of arena for each
_MAX_SUBGRAPHS = 64
_FLAT = 1e-8
_CUSTOM = "CUSTOM"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a subgraph: its shape, type, and what TFLM allocates for it."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    buffer: int
    constant: bool
    variable: bool
    scales: int
    zero_points: int
    scale: float = 0.0
    zero_point: int = 0
    sparse: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def quantized(self) -> bool:
        """Whether TFLM allocates quantization parameters for it."""
        return self.scales > 0 and self.zero_points > 0

    @property
    def flat(self) -> bool:
        """Whether it is an activation that was constant in the calibration: its scale is next to nothing then."""
        return self.quantized and not self.constant and self.scale < _FLAT


@dataclass(frozen=True)
class Operator:
    """One operator: its TFLite name, the tensors it reads (-1 = left out) and writes, and its options."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Subgraph:
    """A graph of operators in their order of execution."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Model:
    """A .tflite file: its subgraphs (the first one runs), its size, and an offline memory plan if it has one."""

    nbytes: int
    subgraphs: tuple[Subgraph, ...]
    plan: tuple[int, ...] | None
    metadata: tuple[str, ...]

    @property
    def main(self) -> Subgraph:
        """The subgraph that an inference runs."""
        return self.subgraphs[0]


def load(data: bytes | str | os.PathLike[str]) -> bytes:
    """Return the bytes of a model given as bytes or as a path."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, (str, os.PathLike)):
        return Path(data).read_bytes()
    raise TypeError(
        f"A model must be the bytes of a .tflite file or its path. Received: data of type {type(data).__name__}"
    )


def read_model(data: bytes | str | os.PathLike[str]) -> Model:
    """Read and verify a model.

    Args:
        data: The bytes of a .tflite file, or its path.

    Returns:
        The `Model`.

    Raises:
        InvalidModel: The bytes are not a .tflite model that TFLM could load; says what is wrong and where.
    """
    raw = load(data)
    root = Reader(raw).root(b"TFL3")
    version = root.scalar(0, "I", 0)
    if version != 3:
        raise InvalidModel(f"A .tflite model must have schema version 3. Received: version {version}")
    buffers = root.tables(4, "buffers")
    sizes = [_buffer_size(buffer) for buffer in buffers]
    names = [_operator_name(code) for code in root.tables(1, "operator_codes")]
    subgraphs = tuple(_subgraph(graph, names, sizes) for graph in root.tables(2, "subgraphs"))
    tensors = sum(len(graph.tensors) for graph in subgraphs)
    if not 0 < len(subgraphs) <= _MAX_SUBGRAPHS:
        raise InvalidModel(f"A model must have 1 to {_MAX_SUBGRAPHS} subgraphs. Received: {len(subgraphs)}")
    metadata, plan = _metadata(root, buffers, tensors)
    return Model(len(raw), subgraphs, plan, metadata)


def _buffer_size(buffer: Table) -> int:
    if buffer.scalar(1, "Q", 0) > 1:
        raise InvalidModel(
            f"{buffer.where} keeps its data outside the flatbuffer (offset {buffer.scalar(1, 'Q', 0)}), which TFLM "
            "does not read. Convert the model without use_buffer_offset."
        )
    return buffer.length(0, "data", 1)


def _operator_name(code: Table) -> str:
    number = max(code.scalar(0, "b", 0), code.scalar(3, "i", 0))
    if number not in BUILTIN_NAMES:
        raise InvalidModel(f"{code.where} must name an operator of the TFLite schema. Received: number {number}")
    name = BUILTIN_NAMES[number]
    # In ASCII with escapes, because it is printed, and a file must not steer a terminal.
    return f"{_CUSTOM}:{ascii(code.string(1, 'custom_code'))[1:-1]}" if name == _CUSTOM else name


def _subgraph(graph: Table, names: list[str], buffers: list[int]) -> Subgraph:
    tables = graph.tables(0, "tensors"), graph.tables(3, "operators")
    if max(map(len, tables)) > _MAX_TENSORS:
        raise InvalidModel(
            f"{graph.where} must have at most {_MAX_TENSORS} tensors and operators; TFLM could not plan more. "
            f"Received: {len(tables[0])} and {len(tables[1])}"
        )
    tensors = tuple(_tensor(i, table, buffers) for i, table in enumerate(tables[0]))
    operators = tuple(_operator(i, table, names, len(tensors)) for i, table in enumerate(tables[1]))
    inputs = _indices(graph, 1, "inputs", len(tensors))
    outputs = _indices(graph, 2, "outputs", len(tensors))
    result = Subgraph(tensors, inputs, outputs, operators)
    _check_order(result, graph.where)
    return result


def _tensor(index: int, table: Table, buffers: list[int]) -> Tensor:
    number = table.scalar(1, "b", 0)
    if number not in TYPES:
        raise InvalidModel(f"{table.where}.type must be a type that TFLM has a size for. Received: number {number}")
    kind, width = TYPES[number]
    shape = table.numbers(0, "shape", "i")
    nbytes = _tensor_bytes(table.where, shape, width)
    buffer = table.scalar(2, "I", 0)
    if buffer >= max(len(buffers), 1):
        raise InvalidModel(f"{table.where}.buffer must be below {len(buffers)}, the buffers. Received: {buffer}")
    stored = buffers[buffer] if buffers else 0
    sparse = table.table(6, "sparsity") is not None
    needed = (prod(shape) + 1) // 2 if kind == "int4" else nbytes
    if stored and not sparse and stored < needed:
        raise InvalidModel(
            f"{table.where} of shape {list(shape)} needs {needed} bytes of constant data. "
            f"Received: a buffer (number {buffer}) of {stored} bytes"
        )
    scales, points = (), ()
    quantization = table.table(4, "quantization")
    if quantization is not None:
        scales = quantization.numbers(2, "scale", "f")
        points = quantization.numbers(3, "zero_point", "q")
    return Tensor(
        index=index, name=table.string(3, "name"), shape=shape, type=kind, nbytes=nbytes, buffer=buffer,
        constant=stored > 0, variable=table.scalar(5, "?", False), scales=len(scales), zero_points=len(points),
        scale=scales[0] if scales else 0.0, zero_point=points[0] if points else 0, sparse=sparse,
    )  # fmt: skip


def _tensor_bytes(where: str, shape: tuple[int, ...], width: int) -> int:
    if len(shape) > _MAX_RANK:
        raise InvalidModel(f"{where}.shape must have at most {_MAX_RANK} axes. Received: {len(shape)}")
    if any(size < 0 for size in shape):
        raise InvalidModel(
            f"{where}.shape must be known and positive; TFLM has no dynamic tensors. Received: {list(shape)}. "
            "Fix the batch and every other dimension before converting."
        )
    nbytes = prod(shape) * width
    if nbytes > _MAX_BYTES:
        raise InvalidModel(f"{where} of shape {list(shape)} must be below 2^31 bytes. Received: {nbytes} bytes")
    return nbytes


def _operator(index: int, table: Table, names: list[str], tensors: int) -> Operator:
    code = table.scalar(0, "I", 0)
    if code >= len(names):
        raise InvalidModel(
            f"{table.where}.opcode_index must be below {len(names)}, the operator codes. Received: {code}"
        )
    name = names[code]
    fields = OPTION_FIELDS.get(name, {})
    options = table.table(4, "builtin_options") if fields else None
    values = {
        key: options.scalar(number, form, default) if options is not None else default
        for key, (number, form, default) in fields.items()
    }
    inputs = _indices(table, 1, "inputs", tensors, optional=True)
    outputs = _indices(table, 2, "outputs", tensors)
    return Operator(index, name, inputs, outputs, values, _indices(table, 8, "intermediates", tensors))


def _indices(table: Table, number: int, name: str, limit: int, optional: bool = False) -> tuple[int, ...]:
    values = table.numbers(number, name, "i")
    low = -1 if optional else 0
    for position, value in enumerate(values):
        if not low <= value < limit:
            raise InvalidModel(
                f"{table.where}.{name}[{position}] must be a tensor, {low} to {limit - 1}. Received: {value}"
            )
    return values


def _check_order(graph: Subgraph, where: str) -> None:
    """Refuse a graph whose operators read what is not there yet: a cycle, a bad order or a missing producer."""
    ready = set(graph.inputs)
    ready.update(tensor.index for tensor in graph.tensors if tensor.constant or tensor.variable or not tensor.nbytes)
    writer: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            if index >= 0 and index not in ready:
                raise InvalidModel(
                    f"{where}.operators[{operator.index}] ({operator.name}) reads tensor {index} before any operator "
                    "writes it: the operators form a cycle, stand in a wrong order, or the tensor has lost its data."
                )
        for index in operator.outputs:
            if index in writer or graph.tensors[index].constant:
                other = f"operators[{writer[index]}]" if index in writer else "a constant buffer"
                raise InvalidModel(
                    f"{where}.operators[{operator.index}] ({operator.name}) writes tensor {index}, "
                    f"which {other} already defines."
                )
            writer[index] = operator.index
        ready.update(operator.outputs)
    for index in graph.outputs:
        if index not in ready:
            raise InvalidModel(f"{where}.outputs names tensor {index}, which no operator writes.")


def _metadata(root: Table, buffers: list[Table], tensors: int) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Return the names of the metadata, and the offline plan's offsets as TFLM reads them (the last one wins)."""
    names: list[str] = []
    plan: tuple[int, ...] | None = None
    for entry in root.tables(6, "metadata"):
        names.append(entry.string(0, "name"))
        if names[-1] != PLAN_NAME:
            continue
        number = entry.scalar(1, "I", 0)
        if number >= len(buffers):
            raise InvalidModel(f"{entry.where}.buffer must be below {len(buffers)}. Received: {number}")
        plan = _plan(buffers[number], entry.where, tensors)
    return tuple(names), plan


def _plan(buffer: Table, where: str, tensors: int) -> tuple[int, ...]:
    size = buffer.length(0, "data", 1)
    words = buffer.numbers(0, "data", "i", count=size // 4)
    if len(words) < 3 or words[2] != tensors or len(words) < 3 + tensors:
        raise InvalidModel(
            f"{where} ({PLAN_NAME}) must hold 3 + {tensors} int32 values, the third the number of tensors. "
            f"Received: {len(words)} values, {words[2] if len(words) > 2 else 'none'} as the third"
        )
    offsets = words[3 : 3 + tensors]
    if any(offset < -1 or offset > _MAX_BYTES // 2 for offset in offsets):
        raise InvalidModel(f"{where} ({PLAN_NAME}) must hold offsets from -1 (not planned) up. Received: {offsets}")
    return offsets
