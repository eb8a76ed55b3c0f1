"""Reorder the operators of a .tflite file so that the arena is smallest."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from . import targets
from .arena import simulate
from .edit import permute_operators
from .planner import ALIGNMENT, align
from .schema import Model, load, read_model

EXACT_STATES = 20_000
EXACT_ORDERS = 400
_TAIL_PLAY = 64  # what another order of small structs may save in the persistent part
_STATEFUL = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "IF", "WHILE"}


def reorder(data: bytes | str | os.PathLike[str], *, target: str = "cortex-m4", kernels: str = "cmsis-nn") -> bytes:
    """Put the operators of a model in the topological order that needs the smallest arena.

    The order that minimises the most bytes alive at once is found by a search over the sets of operators that can
    have run; it is exact while it visits at most 20,000 such sets, which covers networks for microcontrollers. As
    TFLM's placement may waste memory, the orders that keep less alive than the planned head are tried as well, up to
    400 of them; so the result is the smallest arena of any order for graphs that have no more. Beyond these bounds
    the promise is that the result never needs a larger arena than the model as it came.

    Args:
        data: The bytes of a .tflite file, or its path.
        target: The processor whose scratch buffers count, as in `footprint`.
        kernels: The kernels, as in `footprint`.

    Returns:
        The bytes of the model; as it came if no order is better.

    Raises:
        InvalidModel: The bytes are not a .tflite model that TFLM could load.

    Source:
        E. Liberis, N. D. Lane, "Neural networks on microcontrollers: saving memory at inference via operator
        reordering", arXiv:1910.05110, section 3.
    """
    raw = load(data)
    model = read_model(raw)
    problem = _problem(model, target, kernels)
    if problem is None:
        return raw
    best, order = problem.arena(range(problem.count)), None
    candidates = chain([problem.search(EXACT_STATES)], problem.orders(EXACT_ORDERS))
    for candidate in candidates if problem.can_gain(best) else ():
        arena = problem.arena(candidate)
        if arena < best:
            best, order = arena, candidate
    return permute_operators(raw, order) if order is not None else raw


def best_order(raw: bytes, target: str, kernels: str) -> bytes | None:
    """Return the model in the order with the fewest bytes alive at once, `None` if it is in such an order already."""
    problem = _problem(read_model(raw), target, kernels)
    if problem is None:
        return None
    order = problem.search(EXACT_STATES)
    if problem.peak(order) >= problem.peak(range(problem.count)):
        return None
    return permute_operators(raw, order)


def _problem(model: Model, target: str, kernels: str) -> _Problem | None:
    """Return the search for a model, `None` if its operators act on more than their tensors."""
    if len(model.subgraphs) > 1 or any(operator.name in _STATEFUL for operator in model.main.operators):
        return None
    processor = targets.find_target(target)
    return _Problem(model, processor, targets.find_kernels(kernels, processor))


class _Problem:
    """Operators with what each needs first, reads, frees and writes; sets of operators are bits of an int."""

    def __init__(self, model: Model, target: targets.Target, kernels: str) -> None:
        self.model, self.target, self.kernels = model, target, kernels
        graph = model.main
        self.count = len(graph.operators)
        self.now = simulate(model, target, kernels)
        self.scratch = [sum(align(size) for size in self.now.scratch[0, i]) for i in range(self.count)]
        self.sizes = {
            tensor.index: align(tensor.nbytes)
            for tensor in graph.tensors
            if not tensor.constant and not tensor.variable and tensor.nbytes
        }
        writer = {index: operator.index for operator in graph.operators for index in operator.outputs}
        self.needs = [0] * self.count
        self.readers: dict[int, int] = dict.fromkeys(self.sizes, 0)
        states: dict[int, int] = {}
        for operator in graph.operators:
            for index in operator.inputs:
                if index in writer:
                    self.needs[operator.index] |= 1 << writer[index]
                if index in self.readers:
                    self.readers[index] |= 1 << operator.index
                if index >= 0 and graph.tensors[index].variable:  # those that share a state keep their order
                    self.needs[operator.index] |= states.get(index, 0)
                    states[index] = 1 << operator.index
        self.kept = set(graph.outputs)
        self.reads = [[i for i in set(op.inputs) if i in self.sizes] for op in graph.operators]
        self.writes = [[i for i in op.outputs if i in self.sizes] for op in graph.operators]
        self.start = sum(self.sizes[i] for i in set(graph.inputs) if i in self.sizes and self._lasting(i))

    def _lasting(self, tensor: int) -> bool:
        return bool(self.readers[tensor]) or tensor in self.kept

    def step(self, done: int, live: int, operator: int) -> tuple[int, int]:
        """Return the bytes alive while an operator runs, and after it."""
        during = live + self.scratch[operator] + sum(self.sizes[i] for i in self.writes[operator])
        after = live + sum(self.sizes[i] for i in self.writes[operator] if self._lasting(i))
        done |= 1 << operator
        for index in self.reads[operator]:
            if not self.readers[index] & ~done and index not in self.kept:
                after -= self.sizes[index]
        return during, after

    def peak(self, order: Sequence[int]) -> int:
        """Return the most bytes alive at once in an order."""
        done, live, worst = 0, self.start, self.start
        for operator in order:
            during, live = self.step(done, live, operator)
            done |= 1 << operator
            worst = max(worst, during)
        return worst

    def arena(self, order: Sequence[int]) -> int:
        """Return the arena of an order, with TFLM's own placement."""
        operators = self.model.main.operators
        moved = tuple(replace(operators[i], index=place) for place, i in enumerate(order))
        graph = replace(self.model.main, operators=moved)
        phases = simulate(replace(self.model, subgraphs=(graph,)), self.target, self.kernels).phases
        return align(max(phases.values()))

    def can_gain(self, arena: int) -> bool:
        """Whether the fewest bytes alive that any order has would make the arena smaller."""
        least = self.peak(self.search(EXACT_STATES)) + self.now.tail - _TAIL_PLAY
        return max(least, self.now.phases["planning"]) + ALIGNMENT <= arena

    def orders(self, most: int) -> Iterator[list[int]]:
        """Yield topological orders that keep less alive than the planned head now; at most so many."""
        stack: list[tuple[int, int, list[int]]] = [(0, self.start, [])]
        steps = 0
        while stack and most and steps < EXACT_STATES:
            steps += 1
            done, live, order = stack.pop()
            if len(order) == self.count:
                most -= 1
                yield order
            for operator in reversed(self.ready(done)):
                during, after = self.step(done, live, operator)
                if during <= self.now.head:
                    stack.append((done | 1 << operator, after, [*order, operator]))

    def ready(self, done: int) -> list[int]:
        """Return the operators that can run next."""
        return [i for i in range(self.count) if not done >> i & 1 and not self.needs[i] & ~done]

    def search(self, states: int) -> list[int]:
        """Return the order with the smallest peak, by best-first search; the greedy order after too many states."""
        full = (1 << self.count) - 1
        queue: list[tuple[int, int, int, int]] = [(self.start, 0, 0, self.start)]
        trail: dict[int, tuple[int, int]] = {}
        seen = {0: self.start}
        closed: set[int] = set()
        while queue and len(closed) < states:
            worst, _, done, live = heapq.heappop(queue)
            if done in closed:
                continue
            closed.add(done)
            if done == full:
                return _path(trail, full)
            for operator in self.ready(done):
                during, after = self.step(done, live, operator)
                follow, cost = done | 1 << operator, max(worst, during)
                if cost < seen.get(follow, cost + 1):
                    seen[follow] = cost
                    trail[follow] = (done, operator)
                    heapq.heappush(queue, (cost, -follow.bit_count(), follow, after))
        return self.greedy()

    def greedy(self) -> list[int]:
        """Return the order that keeps least alive at every step."""
        done, live, order = 0, self.start, []
        for _ in range(self.count):
            steps = {operator: self.step(done, live, operator) for operator in self.ready(done)}
            operator = min(steps, key=lambda i: (steps[i][1], steps[i][0], i))
            live = steps[operator][1]
            done |= 1 << operator
            order.append(operator)
        return order


def _path(trail: dict[int, tuple[int, int]], done: int) -> list[int]:
    order = []
    while done:
        done, operator = trail[done]
        order.append(operator)
    return order[::-1]
