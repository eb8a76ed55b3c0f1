"""Change a .tflite file in place: the order of its operators, one more metadata entry.

Nothing is parsed and written anew, so that what is not touched stays bit for bit. A flatbuffer's offsets point
ahead only: a new root table goes in front of the old file, new data behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .flatbuffer import Reader, Table

_ID = b"TFL3"
_MODEL_FIELDS = 8  # version, operator_codes, subgraphs, description, buffers, metadata_buffer, metadata, signatures
_BUFFERS, _METADATA = 4, 6


def permute_operators(data: bytes, order: Sequence[int]) -> bytes:
    """Return the file with the operators of the first subgraph in another order.

    Args:
        data: The bytes of a verified .tflite file.
        order: For each place the index of the operator that comes there.
    """
    graph = Reader(data).root(_ID).tables(2, "subgraphs")[0]
    start = graph.target(3, "operators") + 4
    tables = [operator.at for operator in graph.tables(3, "operators")]
    result = bytearray(data)
    for place, index in enumerate(order):
        at = start + 4 * place
        struct.pack_into("<I", result, at, tables[index] - at)
    return bytes(result)


def add_metadata(data: bytes, name: str, payload: bytes) -> bytes:
    """Return the file with a metadata entry of this name; one that it has already is replaced.

    Args:
        data: The bytes of a verified .tflite file.
        name: The entry's name.
        payload: What the entry's buffer holds.
    """
    root = Reader(data).root(_ID)
    buffers = root.tables(_BUFFERS, "buffers")
    entries = root.tables(_METADATA, "metadata")
    for entry in entries:
        buffer = buffers[entry.scalar(1, "I", 0)]
        if entry.string(0, "name") == name and buffer.length(0, "data", 1) == len(payload):
            at = buffer.target(0, "data") + 4
            return data[:at] + payload + data[at + len(payload) :]
    kept = [entry for entry in entries if entry.string(0, "name") != name]
    body = bytearray(data) + bytes(-len(data) % 16)
    slot = _free_buffer(root, buffers, entries, body)
    front = _Front(root, kept, name, slot if slot else len(buffers))
    if not slot:
        front.buffers = [buffer.at for buffer in buffers]
    shift = front.size()
    new = len(body) + 8  # the table of the new buffer, behind its vtable
    if slot:
        at = root.target(_BUFFERS, "buffers") + 4 + 4 * slot
        struct.pack_into("<I", body, at, new - at)
    return front.pack(shift, new) + bytes(body) + _buffer_table(len(body), payload)


def _buffer_table(at: int, payload: bytes) -> bytes:
    """Return a Buffer table (8 bytes behind its vtable) and its data, the data at a multiple of 16."""
    data = (at + 16 + 4 + 15) // 16 * 16  # where the bytes start; their length stands 4 before
    vtable = struct.pack("<HHHH", 6, 8, 4, 0)
    table = struct.pack("<iI", 8, data - 4 - (at + 12))
    gap = bytes(data - 4 - (at + 16))
    return vtable + table + gap + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)


def _free_buffer(root: Table, buffers: list[Table], entries: list[Table], body: bytearray) -> int:
    """Free an empty buffer of an activation by giving the activation buffer 0; return its number, 0 if there is none.

    A converter makes one empty buffer for every activation; by convention buffer 0 is empty and stands for them all.
    """
    empty = {i for i, buffer in enumerate(buffers) if not buffer.length(0, "data", 1)}
    if 0 not in empty:
        return 0
    empty -= {0} | {entry.scalar(1, "I", 0) for entry in entries}
    users: dict[int, list[int]] = {number: [] for number in empty}
    for graph in root.tables(2, "subgraphs"):
        for tensor in graph.tables(0, "tensors"):
            number = tensor.scalar(2, "I", 0)
            if number in users:
                users[number].append(tensor.position(2))
    if not users:
        return 0
    slot = min(users, key=lambda number: (len(users[number]), -number))
    for at in users[slot]:
        struct.pack_into("<I", body, at, 0)
    return slot


class _Front:
    """The new root table with its metadata, laid out in front of the old file."""

    def __init__(self, root: Table, entries: list[Table], name: str, buffer: int) -> None:
        self.root, self.entries, self.buffer = root, entries, buffer
        self.name = struct.pack("<I", len(name)) + name.encode() + bytes(4 - len(name) % 4)
        self.buffers: list[int] = []

    def size(self) -> int:
        """Return its bytes, a multiple of 16."""
        vectors = 4 + 4 * (len(self.entries) + 1) + (4 + 4 * (len(self.buffers) + 1) if self.buffers else 0)
        return (8 + 20 + 36 + vectors + 20 + len(self.name) + 15) // 16 * 16

    def pack(self, shift: int, new_buffer: int) -> bytes:
        """Return the bytes; the old file follows at `shift`, and its positions move by that."""
        table, metadata = 28, 64
        buffers = metadata + 4 + 4 * (len(self.entries) + 1)
        entry = buffers + (4 + 4 * (len(self.buffers) + 1) if self.buffers else 0) + 8
        name = entry + 12
        targets = [self.root.target(field, "field") for field in range(1, _MODEL_FIELDS)]
        targets = [target + shift if target else 0 for target in targets]
        targets[_METADATA - 1] = metadata
        if self.buffers:
            targets[_BUFFERS - 1] = buffers
        places = [4 + 4 * field if target else 0 for field, target in enumerate(targets, 1)]
        out = struct.pack("<I4s", table, _ID)
        out += struct.pack("<HHH7H", 20, 36, 4, *places) + struct.pack("<iI", 20, 3)
        for place, target in zip(places, targets, strict=True):
            out += struct.pack("<I", target - (table + place) if target else 0)
        out += self._vector(metadata, [entry_.at + shift for entry_ in self.entries] + [entry])
        if self.buffers:
            out += self._vector(buffers, [at + shift for at in self.buffers] + [new_buffer + shift])
        out += struct.pack("<HHHH", 8, 12, 4, 8) + struct.pack("<iII", 8, name - (entry + 4), self.buffer) + self.name
        return out + bytes(shift - len(out))

    @staticmethod
    def _vector(at: int, targets: list[int]) -> bytes:
        offsets = [target - (at + 4 + 4 * i) for i, target in enumerate(targets)]
        return struct.pack(f"<{len(offsets) + 1}I", len(offsets), *offsets)
