"""Rewrite a .tflite so that it takes less flash and computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # force_align of Buffer.data in schema.fbs


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors and strings once; a flatbuffer may point to one from several places."""

    head: int

    def __init__(self) -> None:
        super().__init__(1024)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:
        array = np.ascontiguousarray(x)
        key = (array.dtype.str, array.tobytes())
        if key not in self._written:
            self._written[key] = self._write_bytes(key[1]) if array.dtype == np.uint8 else super().CreateNumpyVector(x)
        return self._written[key]

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:
        key = ("str", s.encode(encoding) if isinstance(s, str) else bytes(s))
        if key not in self._written:
            self._written[key] = super().CreateString(s, encoding, errors)
        return self._written[key]

    def _write_bytes(self, data: bytes) -> int:
        self.StartVector(1, len(data), _ALIGNMENT)
        start = int(self.head) - len(data)
        self.head = start
        self.Bytes[start : start + len(data)] = data
        return int(self.EndVector())


def compact(
    data: bytes,
    rename: Callable[[str], str] | None = None,
    *,
    inputs: Callable[[str], int] | None = None,
    outputs: Callable[[str], int] | None = None,
) -> bytes:
    """Return the model without what an interpreter on a microcontroller never reads.

    Names of constants, signatures and the converter's own metadata are dropped, empty buffers merged, and equal vectors
    (the zero points of all filters, for one) written once. Operators, tensors and their order stay.

    Args:
        data: A .tflite file.
        rename: The name of an activation -> its new name. By default names stay.
        inputs: The name of an input in `data` -> its place among those that the model shall take. By default their
            order stays.
        outputs: The same for the outputs.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    model.description = model.signatureDefs = None
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in _CONVERTER_METADATA]
    main = model.subgraphs[0]
    main.inputs = _ordered(main, main.inputs, inputs)
    main.outputs = _ordered(main, main.outputs, outputs)
    for graph in model.subgraphs:
        _rename(graph, model.buffers, rename or (lambda name: name))
    _merge_buffers(model)
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _ordered(graph: Any, indices: Sequence[int], place: Callable[[str], int] | None) -> list[int]:
    if place is None:
        return [int(index) for index in indices]
    return sorted(map(int, indices), key=lambda index: place(graph.tensors[index].name.decode()))


_CONVERTER_METADATA = (b"min_runtime_version", b"CONVERSION_METADATA")


def _rename(graph: Any, buffers: list[Any], rename: Callable[[str], str]) -> None:
    used: dict[str, int] = {}
    for tensor in graph.tensors:
        if _is_constant(buffers[tensor.buffer]):
            tensor.name = None
            continue
        name = rename((tensor.name or b"").decode())
        times = used[name] = used.get(name, 0) + 1
        tensor.name = name if times == 1 else f"{name}:{times - 1}"


def _is_constant(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _merge_buffers(model: Any) -> None:
    """Keep buffer 0, which is empty by convention, and every buffer with data; all others become buffer 0."""
    used = [t.buffer for graph in model.subgraphs for t in graph.tensors] + [e.buffer for e in model.metadata]
    kept = [0, *sorted({index for index in used if index and _is_constant(model.buffers[index])})]
    position = {old: new for new, old in enumerate(kept)}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = position.get(tensor.buffer, 0)
    for entry in model.metadata:
        entry.buffer = position.get(entry.buffer, 0)
    model.buffers = [model.buffers[index] for index in kept]
