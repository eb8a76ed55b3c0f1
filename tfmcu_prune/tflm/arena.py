"""Simulate how TFLM fills its arena when it starts, allocation by allocation.

The arena is filled from both ends. Persistent allocations grow down from its end (the *tail*); its start holds the
requests for scratch buffers and temporary structs while TFLM starts, and the planned activations afterwards (the
*head*). What an arena must hold is therefore the maximum over three phases: while an operator prepares, while the
memory is planned, and when all is done. `arena_used_bytes()` of TFLM knows the last one only.

Source: tensorflow/tflite-micro 90b983c2, micro_allocator.cc, micro_interpreter.cc, micro_interpreter_graph.cc,
arena_allocator/single_arena_buffer_allocator.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .kernels import KERNELS
from .planner import (
    ALIGNMENT,
    Buffer,
    align,
    extent,
    greedy,
    scratch_buffer,
    tensor_buffers,
)
from .prepare import Prepare
from .schema import Model, Operator, Tensor
from .targets import Target

_SCRATCH_SLOTS = 12  # kMaxScratchBuffersPerOp
_PLANNER_BYTES = 40  # GreedyMemoryPlanner::per_buffer_size()


@dataclass(frozen=True)
class Arena:
    """How a model fills the arena.

    Args:
        head: Planned activations and scratch buffers, bytes.
        tail: Persistent allocations, bytes.
        parts: The tail by what it holds, bytes.
        phases: What each phase needs, bytes: "final", "planning", and the worst "prepare".
        preparing: The operator whose preparation needs most, its index in its subgraph.
        buffers: What the planner places, in its order.
        offsets: Where it places them.
        scratch: Scratch bytes by (subgraph, operator).
        scopes: First and last scope by (subgraph, operator).
        unknown: Operators that have no entry in the table of kernels.
    """

    head: int
    tail: int
    parts: dict[str, int]
    phases: dict[str, int]
    preparing: tuple[int, int]
    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    scratch: dict[tuple[int, int], tuple[int, ...]]
    scopes: dict[tuple[int, int], tuple[int, int]]
    unknown: tuple[str, ...]


class _Tail:
    """The end of the arena: persistent allocations, aligned downwards, counted by what they hold."""

    def __init__(self) -> None:
        self.used = 0
        self.parts: dict[str, int] = {}

    def allocate(self, part: str, size: int, alignment: int = ALIGNMENT) -> None:
        """Take a block; what alignment wastes counts to the part that asked."""
        before = self.used
        self.used = align(self.used + size, alignment)
        self.parts[part] = self.parts.get(part, 0) + self.used - before


def simulate(model: Model, target: Target, kernels: str) -> Arena:
    """Run TFLM's start on a model and return what it takes of the arena."""
    return _Start(model, target, kernels).run()


class _Start:
    """One start of TFLM: the state of the arena while it is filled."""

    def __init__(self, model: Model, target: Target, kernels: str) -> None:
        self.model, self.target, self.kernels = model, target, kernels
        self.tail = _Tail()
        self.scratch: dict[tuple[int, int], tuple[int, ...]] = {}
        self.requests = 0
        self.worst, self.preparing = 0, (0, 0)
        self.unknown: list[str] = []

    def run(self) -> Arena:
        """Take the steps in TFLM's order."""
        self._construct()
        for operator in self._operators():
            self._parse(operator[1])
        for operator in self._operators():
            self._init(operator[1])
        for graph, operator_ in self._operators():
            self._prepare(graph, operator_)
        if self.requests:
            self._struct("scratch handles", "ScratchBufferHandle", self.requests)
        planning, buffers, scopes = self._plan()
        offsets = greedy(buffers)
        head = extent(buffers, offsets)
        self._open_inputs_and_outputs()
        phases = {"final": head + self.tail.used, "prepare": self.worst, "planning": planning}
        return Arena(
            head, self.tail.used, self.tail.parts, phases, self.preparing, tuple(buffers), tuple(offsets),
            self.scratch, scopes, tuple(dict.fromkeys(self.unknown)),
        )  # fmt: skip

    def _operators(self) -> Iterator[tuple[int, Operator]]:
        for index, graph in enumerate(self.model.subgraphs):
            for operator in graph.operators:
                yield index, operator

    def _struct(self, part: str, name: str, count: int = 1) -> None:
        size, alignment = self.target.struct(name)
        self.tail.allocate(part, size * count, alignment)

    def _construct(self) -> None:
        for name in ("SingleArenaBufferAllocator", "GreedyMemoryPlanner", "MicroAllocator"):
            self._struct("interpreter", name)
        self._struct("interpreter", "MicroBuiltinDataAllocator")
        self._struct("interpreter", "SubgraphAllocations", len(self.model.subgraphs))
        for graph in self.model.subgraphs:
            self._struct("tensors", "TfLiteEvalTensor", len(graph.tensors))
        for graph in self.model.subgraphs:
            self._struct("operators", "NodeAndRegistration", len(graph.operators))

    def _parse(self, operator: Operator) -> None:
        kernel = KERNELS.get(operator.name)
        if kernel is None:
            self.unknown.append(operator.name)
        elif kernel.params:
            self._struct("operator options", kernel.params)

    def _init(self, operator: Operator) -> None:
        kernel = KERNELS.get(operator.name)
        if kernel is None:
            return
        size = kernel.data[self.target.wide]
        if self.kernels == "cmsis-nn" and kernel.cmsis:
            size = kernel.cmsis
        if size:
            self.tail.allocate("kernel data", size)

    def _prepare(self, graph: int, operator: Operator) -> None:
        at = Prepare(self.model.subgraphs[graph], operator, self.target, self.kernels)
        kernel = KERNELS.get(operator.name)
        if kernel is not None:
            at.temps(kernel.temps)
            if kernel.prepare is not None:
                kernel.prepare(at)
        for size in at.persistents:
            self.tail.allocate("kernel buffers", size)
        need = self._temporaries(at.opened) + self.tail.used
        if need > self.worst:
            self.worst, self.preparing = need, (graph, operator.index)
        self.requests += len(at.scratches)
        self.scratch[graph, operator.index] = tuple(at.scratches)

    def _requests_end(self) -> int:
        return self.target.struct("ScratchBufferRequest")[0] * (self.requests + _SCRATCH_SLOTS)

    def _temporaries(self, tensors: list[Tensor]) -> int:
        """Return the end of the TfLiteTensors that a Prepare opens behind the scratch requests."""
        end = self._requests_end()
        for tensor in tensors:
            for size, alignment in self._tensor_structs(tensor):
                end = align(end, alignment) + size
        return end

    def _tensor_structs(self, tensor: Tensor) -> list[tuple[int, int]]:
        structs = [self.target.struct("TfLiteTensor")]
        if tensor.quantized:
            structs += [self.target.struct("TfLiteAffineQuantization"), (4 + 4 * tensor.scales, 4)]
        return structs

    def _plan(self) -> tuple[int, list[Buffer], dict[tuple[int, int], tuple[int, int]]]:
        buffers, scopes = tensor_buffers(self.model)
        for (graph, operator), sizes in self.scratch.items():
            span = scopes.get((graph, operator), (-1, -1))
            buffers += [scratch_buffer(size, span, graph, operator) for size in sizes]
        plan, number = self.model.plan, 0
        for graph_ in self.model.subgraphs:
            for i, tensor in enumerate(graph_.tensors):
                if tensor.variable and (plan is None or plan[i] == -1):
                    self.tail.allocate("variables", tensor.nbytes)
            number += len(graph_.tensors)
        pointer, info = self.target.struct("pointer"), self.target.struct("AllocationInfo")
        end = align(self._requests_end(), pointer[1]) + pointer[0] * len(self.model.subgraphs)
        end = align(end, info[1]) + info[0] * (number + self.requests)
        need = align(end) + _PLANNER_BYTES * len(buffers) + align(self.tail.used)
        return need, buffers, scopes

    def _open_inputs_and_outputs(self) -> None:
        part = "inputs and outputs"
        for numbers in (self.model.main.inputs, self.model.main.outputs):
            self.tail.allocate(part, self.target.struct("pointer")[0] * len(numbers))
            for number in numbers:
                for size, alignment in self._tensor_structs(self.model.main.tensors[number]):
                    self.tail.allocate(part, size, alignment)
