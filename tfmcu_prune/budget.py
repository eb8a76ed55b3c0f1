"""What a model may cost (`Budget`) and what it does cost (`Resources`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from tfmcu_prune import boards

_BYTE_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
_COUNT_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
_UNITS = {"arena": _BYTE_UNITS, "flash": _BYTE_UNITS, "macs": _COUNT_UNITS}
_EXAMPLE = {"arena": '"64KiB" or 65536', "flash": '"128KiB" or 131072', "macs": '"3M" or 3000000'}


@dataclass(frozen=True)
class Resources:
    """What one inference of a model costs.

    Args:
        arena: Tensor arena of TensorFlow Lite Micro, bytes.
        flash: The .tflite file, bytes.
        macs: Multiply-accumulates of one inference, batch 1.
    """

    arena: int
    flash: int
    macs: int


@dataclass(frozen=True)
class Budget:
    """What one inference of a model may cost; a resource left out is not limited.

    Args:
        arena: Tensor arena of TensorFlow Lite Micro: bytes as an int, or a string with a unit
            ("48KiB" = 48 * 1024 B, "48KB" = 48,000 B). `None` is no limit.
        flash: The .tflite file, in the same units. `None` is no limit.
        macs: Multiply-accumulates of one inference: an int, or a string such as "3M" or "250k".
            `None` is no limit.

    Raises:
        ValueError: A field that cannot be read, or is not a positive number.

    Example:
        >>> Budget(arena="48KiB", macs="3M")
        Budget(arena=49152, flash=None, macs=3000000)
    """

    arena: int | None = None
    flash: int | None = None
    macs: int | None = None

    def __init__(
        self,
        arena: int | str | None = None,
        flash: int | str | None = None,
        macs: int | str | None = None,
    ) -> None:
        for name, value in (("arena", arena), ("flash", flash), ("macs", macs)):
            object.__setattr__(self, name, _parse(name, value))

    @classmethod
    def for_board(cls, name: str, *, reserve_sram: int | str = 0, reserve_flash: int | str = 0) -> Budget:
        """Return what a board leaves for a model.

        Args:
            name: A board of `tfmcu_prune.boards`, such as "nano33ble".
            reserve_sram: SRAM for stack, heap, buffers and radio, in bytes or as "32KiB".
            reserve_flash: Flash for the rest of the program, TFLM's own code included.

        Raises:
            ValueError: No such board (the message lists them), or a reserve that cannot be read.
            BudgetError: The reserve takes all there is.

        Example:
            >>> Budget.for_board("nano33ble", reserve_sram="64KiB", reserve_flash="256KiB")
            Budget(arena=196608, flash=786432, macs=None)
        """
        reserve = _read("arena", reserve_sram), _read("flash", reserve_flash)
        arena, flash = boards.free(boards.find(name), *reserve)
        return cls(arena=arena, flash=flash)

    def limits(self) -> dict[str, int]:
        """Return the limited resources only, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if value is not None}


def _parse(name: str, value: int | str | None) -> int | None:
    if value is None:
        return None
    number = _read(name, value)
    if number <= 0:
        raise ValueError(
            f"A budget's {name} must be positive, for example {_EXAMPLE[name]}; use None for no limit. "
            f"Received: {name}={value!r}"
        )
    return number


def _read(name: str, value: int | str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        if hasattr(value, "__index__") and not isinstance(value, bool):
            return int(value.__index__())
        raise ValueError(
            f"A budget's {name} must be an int or a string, for example {_EXAMPLE[name]}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    if isinstance(value, int):
        return value
    units = _UNITS[name]
    match = re.fullmatch(r"\s*([+-]?[0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})\s*", value)
    if match is None or match[2].upper() not in units:
        known = ", ".join(unit.replace("IB", "iB") for unit in units if unit)
        raise ValueError(
            f"A budget's {name} cannot be read: expected a number and one of the units {known}, "
            f"for example {_EXAMPLE[name]}. Received: {name}={value!r}"
        )
    return round(float(match[1]) * units[match[2].upper()])


@dataclass(frozen=True)
class Limits:
    """What must stay of a model beside what its structure asks for.

    Args:
        fixed: Names of layers, the channels of which are all kept.
        unsupported: Whether to keep the channels that touch a layer without a rule, where it would be an error.
        multiple_of: The number of channels a group is a multiple of this, or all of them.
        min_channels: Channels that stay in each group at least: a number, or below 1 a part of the group.
    """

    fixed: tuple[str, ...] = ()
    unsupported: bool = False
    multiple_of: int = 1
    min_channels: float = 1

    def minimum(self, size: int) -> int:
        """Return how many channels stay at least in a group of `size`."""
        wanted = math.ceil(self.min_channels * size) if self.min_channels < 1 else int(self.min_channels)
        up = -(-max(wanted, self.multiple_of) // self.multiple_of) * self.multiple_of
        return min(up, size)


NO_LIMITS = Limits()
