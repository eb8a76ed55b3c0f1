"""TFLM's memory planner: lifetimes of buffers, and the greedy placement that TFLM computes when it starts.

Source: tensorflow/tflite-micro 90b983c2, micro_allocation_info.cc (lifetimes) and
memory_planner/greedy_memory_planner.cc (placement, order of ties).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import InvalidModel
from .schema import Model, Operator

ALIGNMENT = 16
ONLINE = -1
_MAX_SCOPES = 20_000


@dataclass(frozen=True)
class Buffer:
    """Memory that lives from scope `first` to scope `last`, both included; `offset` -1 lets TFLM place it."""

    size: int
    first: int
    last: int
    offset: int = ONLINE
    subgraph: int = 0
    tensor: int = -1
    operator: int = -1

    def meets(self, other: Buffer) -> bool:
        """Whether both live at the same time."""
        return self.first <= other.last and other.first <= self.last


def align(size: int, to: int = ALIGNMENT) -> int:
    """Round up to a multiple."""
    return (size + to - 1) // to * to


def greedy(buffers: Sequence[Buffer]) -> list[int]:
    """Place buffers as TFLM does: the planned ones first, then by size, each into the first gap that takes it.

    Args:
        buffers: The buffers in TFLM's order (tensors by index, then scratch buffers).

    Returns:
        The offset of each buffer, bytes.
    """
    fixed = [i for i, buffer in enumerate(buffers) if buffer.offset != ONLINE]
    free = [i for i, buffer in enumerate(buffers) if buffer.offset == ONLINE]
    # TFLM fills its array from the back and sorts it stably: of equal sizes the later buffer comes first.
    free.sort(key=lambda i: (-buffers[i].size, -i))
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int]] = []
    for order, i in enumerate(fixed + free):
        buffer = buffers[i]
        offsets[i] = buffer.offset if buffer.offset != ONLINE else first_gap(buffer, placed, buffers)
        insort(placed, (offsets[i], order, i))
    return offsets


def first_gap(buffer: Buffer, placed: Sequence[tuple[int, int, int]], buffers: Sequence[Buffer]) -> int:
    """Return the lowest offset at which a buffer fits among the placed ones (offset, order, index), sorted."""
    size, first, last = buffer.size, buffer.first, buffer.last
    offset = 0
    for start, _, i in placed:
        other = buffers[i]
        if other.first > last or first > other.last:
            continue
        if start - offset >= size:
            break
        offset = max(offset, start + other.size)
    return offset


def extent(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Return the size of the planned head: the highest end of a buffer."""
    return max((offset + buffer.size for buffer, offset in zip(buffers, offsets, strict=True)), default=0)


def live_bytes(buffers: Sequence[Buffer]) -> dict[int, int]:
    """Return the bytes alive in each scope, a scope without a buffer left out."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.size
    live, result = 0, {}
    scopes = sorted(changes)
    for scope, following in pairwise(scopes):
        live += changes[scope]
        result.update(dict.fromkeys(range(scope, following), live))
    return result


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Return the head that no plan can go under: the most bytes alive at once."""
    return max(live_bytes(buffers).values(), default=0)


def tensor_buffers(model: Model) -> tuple[list[Buffer], dict[tuple[int, int], tuple[int, int]]]:
    """Return the buffers of the tensors, and each operator's scopes by (subgraph, operator)."""
    lives = _Lifetimes(model)
    lives.mark(0)
    buffers = []
    number = 0
    for graph_index, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            offset = model.plan[number] if model.plan else ONLINE
            first, last = lives.spans.get((graph_index, tensor.index), (-1, -1))
            planned = not tensor.variable or offset != ONLINE
            if not tensor.constant and planned and tensor.nbytes:
                buffers.append(Buffer(align(tensor.nbytes), first, last, offset, graph_index, tensor.index))
            number += 1
    return buffers, lives.scopes


def scratch_buffer(size: int, scopes: tuple[int, int], subgraph: int, operator: int) -> Buffer:
    """Return the buffer of an operator's scratch request."""
    return Buffer(align(size), *scopes, subgraph=subgraph, operator=operator)


class _Lifetimes:
    """First and last scope of every tensor; each operator opens a scope, as does each subgraph that it calls."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scope = 0
        self.spans: dict[tuple[int, int], tuple[int, int]] = {}
        self.scopes: dict[tuple[int, int], tuple[int, int]] = {}
        self.open: set[int] = set()

    def touch(self, graph: int, tensors: Sequence[int], creates: bool) -> None:
        """Extend the lives of tensors to this scope."""
        for tensor in tensors:
            if tensor >= 0:
                first, _ = self.spans.get((graph, tensor), (-1, -1))
                self.spans[graph, tensor] = (self.scope if creates and first == -1 else first, self.scope)

    def mark(self, graph_index: int) -> None:
        """Walk one subgraph."""
        graph = self.model.subgraphs[graph_index]
        self.open.add(graph_index)
        if self.scope > _MAX_SCOPES:
            raise InvalidModel(f"The subgraphs call each other so often that more than {_MAX_SCOPES} operators run.")
        self.touch(graph_index, graph.inputs, creates=True)
        for operator in graph.operators:
            self.scope += 1
            start = self.scope
            self.touch(graph_index, operator.outputs, creates=True)
            for called in _called(operator, len(self.model.subgraphs)):
                if called not in self.open:
                    self.scope += 1
                    self.mark(called)
            self.touch(graph_index, operator.inputs, creates=False)
            self.touch(graph_index, operator.outputs, creates=False)
            self.scopes[graph_index, operator.index] = (start, self.scope)
        self.touch(graph_index, graph.outputs, creates=True)
        self.open.discard(graph_index)


def _called(operator: Operator, count: int) -> list[int]:
    names = ("then", "else", "init", "cond", "body")
    numbers = [operator.options[name] for name in names if name in operator.options]
    return [number for number in numbers if 0 <= number < count]


def with_offsets(buffers: Sequence[Buffer], offsets: Sequence[int]) -> list[Buffer]:
    """Return the buffers with their offsets fixed."""
    return [replace(buffer, offset=offset) for buffer, offset in zip(buffers, offsets, strict=True)]
