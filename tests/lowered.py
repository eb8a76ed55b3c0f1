"""What the training-time formula says of a model's operators against the file that the converter wrote."""

from __future__ import annotations

from math import prod

import numpy as np

from tfmcu_prune.program import Program
from tfmcu_prune.tflm.schema import read_model

Row = tuple[
    str, tuple[int, ...], tuple[int, ...]
]  # operator, elements of the activations it reads, and of those it writes


def rows_of_file(data: bytes) -> list[tuple[Row, str]]:
    """The operators of a file, each with the name of its output."""
    graph = read_model(data).main
    rows = []
    for operator in graph.operators:
        reads = [graph.tensors[i] for i in operator.inputs if i >= 0 and not graph.tensors[i].constant]
        writes = [graph.tensors[i] for i in operator.outputs]
        row = (operator.name, tuple(prod(t.shape) for t in reads), tuple(prod(t.shape) for t in writes))
        rows.append((row, writes[0].name))
    return rows


def rows_of_program(program: Program, mask: np.ndarray) -> list[tuple[Row, str]]:
    """The operators that `lower` foretells, under a mask."""
    keep = np.append(mask, True)
    sizes = [int(keep[labels].sum()) for labels in program.activations]
    return [
        ((o.kind, tuple(sizes[a] for a in o.inputs), tuple(sizes[a] for a in o.outputs)), o.layer)
        for o in program.operators
    ]


def first_difference(program: Program, mask: np.ndarray, data: bytes) -> str:
    """The operators round the first one that differs; "" where all are equal."""
    real, told = rows_of_file(data), rows_of_program(program, mask)
    if [row for row, _ in real] == [row for row, _ in told]:
        return ""
    pairs = zip(real, told, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a[0] != b[0]), min(len(real), len(told)))
    lines = [f"operator {place} of {len(real)} in the file, {len(told)} foretold"]
    for i in range(max(place - 2, 0), place + 4):
        lines.append(f"  {i}: {real[i] if i < len(real) else '-'} | {told[i] if i < len(told) else '-'}")
    return "\n".join(lines)
