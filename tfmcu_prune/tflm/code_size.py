"""How much flash TFLM and the kernels of a model take, apart from the model itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _table(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((Path(__file__).parent / "data" / f"code_{name}.json").read_text())
    return table


def code_size(operators: Iterable[str], table: str, build: str) -> tuple[int, tuple[str, ...]]:
    """Return the bytes of code that a set of operators keeps in the image, and the operators not in the table.

    Kernels share much code, so sizes do not add up; the image is the union of the linker sections that each
    operator keeps when it is linked alone.

    Args:
        operators: TFLite names, such as "CONV_2D".
        table: The build measured, "cortex-m4".
        build: "reference", "cmsis-nn" (AddConv2D() and so on) or "cmsis-nn-int8" (AddConv2D(Register_CONV_2D_INT8())
            where CMSIS-NN has such a registration).
    """
    sizes = _table(table)[build]
    numbers = {name: i for i, name in enumerate(sizes["operators"])}
    mask = 0
    unknown = []
    for name in dict.fromkeys(operators):
        if name in numbers:
            mask |= 1 << numbers[name]
        else:
            unknown.append(name)
    total = sizes["base"] + sum(size for size, keepers in sizes["groups"] if int(keepers, 16) & mask)
    return total, tuple(unknown)
