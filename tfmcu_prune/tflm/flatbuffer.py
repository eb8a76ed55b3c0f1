"""Walk a flatbuffer with every access checked."""

from __future__ import annotations

import struct
from typing import Any

from ..errors import InvalidModel

_WIDTHS = {"?": 1, "b": 1, "B": 1, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}

_KERAS = (b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")  # how a .keras and a .h5 file begin
_HINT = ", which look like a Keras model: convert it first (tfmcu_prune.convert, or the command tfmcu-prune convert)"


class Reader:
    """The bytes of a flatbuffer, read with bounds checks and a bound on the total work.

    In a file that a writer made, every vector stands once, so all of them together are no longer than the file.
    A hostile file can point a million tables at one long vector; `spend` stops that.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = 2 * len(data) + 4096

    def unpack(self, form: str, at: int, where: str) -> tuple[Any, ...]:
        """Read little-endian values at a position."""
        size = struct.calcsize("<" + form)
        if at < 0 or at + size > len(self.data):
            raise InvalidModel(
                f"{where} points outside the file: expected {size} bytes at {at}. Received: {len(self.data)} bytes "
                "in all (a truncated or corrupted .tflite?)"
            )
        return struct.unpack_from("<" + form, self.data, at)

    def spend(self, size: int, where: str) -> None:
        """Count bytes read against the bound."""
        self.left -= size
        if self.left < 0:
            raise InvalidModel(f"{where}: the vectors of this file overlap each other; no writer makes that.")

    def root(self, identifier: bytes) -> Table:
        """Return the root table after checking the file identifier."""
        if len(self.data) < 8 or self.data[4:8] != identifier:
            raise InvalidModel(
                f"A .tflite file must hold {identifier.decode()!r} at byte 4. Received: {self.data[4:8]!r} in "
                f"{len(self.data)} bytes{_HINT if self.data.startswith(_KERAS) else ''}"
            )
        (offset,) = self.unpack("I", 0, "the root offset")
        return Table(self, offset, "model")


class Table:
    """A table of a flatbuffer; `where` is its path in the model, for messages."""

    def __init__(self, reader: Reader, at: int, where: str) -> None:
        self.reader, self.at, self.where = reader, at, where
        (back,) = reader.unpack("i", at, where)
        self.vtable = at - back
        size, self.size = reader.unpack("HH", self.vtable, f"{where}'s vtable")
        if size < 4 or size % 2 or self.size < 4:
            raise InvalidModel(f"{where}'s vtable must have an even size from 4 up. Received: {size} and {self.size}")
        reader.spend(size, where)
        self.fields: tuple[int, ...] = reader.unpack(f"{size // 2 - 2}H", self.vtable + 4, f"{where}'s vtable")

    def position(self, number: int, width: int = 4) -> int:
        """Return where a field's value stands, 0 if the table leaves it out."""
        offset = self.fields[number] if number < len(self.fields) else 0
        if offset and not 4 <= offset <= self.size - width:
            raise InvalidModel(f"{self.where}, field {number} must stand inside its table. Received: offset {offset}")
        return self.at + offset if offset else 0

    def scalar(self, number: int, form: str, default: Any) -> Any:
        """Return a field's number, or the default that the schema gives it."""
        at = self.position(number, _WIDTHS[form])
        return self.reader.unpack(form, at, self.where)[0] if at else default

    def target(self, number: int, name: str) -> int:
        """Return where a field's offset points, 0 if the table leaves it out."""
        at = self.position(number)
        if not at:
            return 0
        where = f"{self.where}.{name}"
        (offset,) = self.reader.unpack("I", at, where)
        if not offset:
            raise InvalidModel(f"{where} must point ahead. Received: offset 0")
        return at + int(offset)

    def table(self, number: int, name: str) -> Table | None:
        """Return a field's table, `None` if it is left out."""
        at = self.target(number, name)
        return Table(self.reader, at, f"{self.where}.{name}") if at else None

    def length(self, number: int, name: str, width: int) -> int:
        """Return the element count of a field's vector, 0 if it is left out, after checking that it fits the file."""
        at = self.target(number, name)
        if not at:
            return 0
        where = f"{self.where}.{name}"
        (count,) = self.reader.unpack("I", at, where)
        if at + 4 + count * width > len(self.reader.data):
            raise InvalidModel(
                f"{where} claims {count} elements of {width} bytes at {at + 4}, beyond the end of the file "
                f"({len(self.reader.data)} bytes)."
            )
        return int(count)

    def numbers(self, number: int, name: str, form: str, count: int | None = None) -> tuple[Any, ...]:
        """Return the numbers of a field's vector; `count` reads that many instead of its length."""
        width = _WIDTHS[form]
        size = self.length(number, name, width) if count is None else count
        if not size:
            return ()
        self.reader.spend(size * width, f"{self.where}.{name}")
        return self.reader.unpack(f"{size}{form}", self.target(number, name) + 4, f"{self.where}.{name}")

    def tables(self, number: int, name: str) -> list[Table]:
        """Return the tables of a field's vector."""
        start = self.target(number, name) + 4
        offsets = self.numbers(number, name, "I")
        prefix = f"{self.where}.{name}" if self.where != "model" else name
        return [Table(self.reader, start + 4 * i + offset, f"{prefix}[{i}]") for i, offset in enumerate(offsets)]

    def string(self, number: int, name: str) -> str:
        """Return a field's text, empty if it is left out."""
        size = self.length(number, name, 1)
        if not size:
            return ""
        self.reader.spend(size, f"{self.where}.{name}")
        start = self.target(number, name) + 4
        return self.reader.data[start : start + size].decode("utf-8", "replace")
