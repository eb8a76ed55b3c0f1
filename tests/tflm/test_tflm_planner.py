"""The planner, the packing and the order of operators against brute force."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from tflm_build import chain

from tfmcu_prune.tflm import plan, reorder
from tfmcu_prune.tflm.edit import permute_operators
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.order import EXACT_ORDERS
from tfmcu_prune.tflm.packing import pack
from tfmcu_prune.tflm.planner import Buffer, extent, first_gap, greedy, lower_bound
from tfmcu_prune.tflm.schema import read_model


@st.composite
def buffer_lists(draw: st.DrawFn, most: int) -> list[Buffer]:
    result = []
    for _ in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 8))
        result.append(Buffer(16 * draw(st.integers(0, 12)), first, first + draw(st.integers(0, 5))))
    return result


def check_no_overlap(buffers: list[Buffer], offsets: list[int]) -> None:
    for i, a in enumerate(buffers):
        for j, b in enumerate(buffers[:i]):
            if a.meets(b) and a.size and b.size:
                assert offsets[i] + a.size <= offsets[j] or offsets[j] + b.size <= offsets[i]


def brute_force(buffers: list[Buffer]) -> int:
    """Return the least memory: first-fit over every order reaches every packing that is pushed down."""
    best = sum(buffer.size for buffer in buffers)
    for order in permutations(range(len(buffers))):
        offsets, placed = [0] * len(buffers), []
        for rank, i in enumerate(order):
            offsets[i] = first_gap(buffers[i], sorted(placed), buffers)
            placed.append((offsets[i], rank, i))
        best = min(best, extent(buffers, offsets))
    return best


@given(buffer_lists(most=12))
def test_greedy_and_pack_never_overlap(buffers: list[Buffer]) -> None:
    planned, packed = greedy(buffers), pack(buffers)
    check_no_overlap(buffers, planned)
    check_no_overlap(buffers, packed)
    assert lower_bound(buffers) <= extent(buffers, packed) <= extent(buffers, planned)


@settings(max_examples=60, deadline=None)
@given(buffer_lists(most=6))
def test_pack_equals_brute_force(buffers: list[Buffer]) -> None:
    assert extent(buffers, pack(buffers)) == brute_force(buffers)


def test_greedy_takes_the_later_of_equal_buffers_first() -> None:
    assert greedy([Buffer(32, 0, 1), Buffer(32, 1, 2), Buffer(16, 1, 1)]) == [32, 0, 64]


def test_greedy_keeps_what_is_planned() -> None:
    assert greedy([Buffer(32, 0, 1, offset=16), Buffer(16, 0, 1), Buffer(32, 1, 2)]) == [16, 0, 48]


def test_pack_beats_greedy() -> None:
    buffers = [Buffer(size, first, last) for size, first, last in
               ((48, 0, 1), (32, 1, 2), (48, 2, 3), (16, 0, 2), (32, 3, 4), (48, 4, 5), (16, 2, 5))]  # fmt: skip
    assert extent(buffers, pack(buffers)) == brute_force(buffers) <= extent(buffers, greedy(buffers))


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """A random graph of up to six operators, each with one output."""
    sizes, edges = [16 * draw(st.integers(1, 20))], []
    for _ in range(draw(st.integers(2, 6))):
        inputs = draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=2, unique=True))
        sizes.append(16 * draw(st.integers(1, 20)))
        edges.append((inputs, [len(sizes) - 1]))
    return chain(sizes, edges)


def orders(model: bytes) -> list[tuple[int, ...]]:
    """Return every topological order of a model's operators."""
    graph = read_model(model).main
    result = []
    for order in permutations(range(len(graph.operators))):
        ready = set(graph.inputs)
        for i in order:
            if not set(graph.operators[i].inputs) <= ready:
                break
            ready.update(graph.operators[i].outputs)
        else:
            result.append(order)
    return result


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_reorder_and_plan_equal_brute_force(model: bytes) -> None:
    before = footprint(model)
    ordered = reorder(model)
    choices = orders(model)
    if len(choices) <= EXACT_ORDERS and before.peak.phase == "final":
        best = min(footprint(permute_operators(model, order)).arena for order in choices)
        assert footprint(ordered).arena == best
    planned = footprint(plan(model))
    assert planned.arena <= before.arena
    buffers = [Buffer(-(-t.nbytes // 16) * 16, *span) for t, span in zip(*_lives(model), strict=True)]
    if before.peak.phase == "final" and len(buffers) <= 6:
        assert planned.head == brute_force(buffers)


def _lives(model: bytes) -> tuple[list, list[tuple[int, int]]]:
    """Work lifetimes out by hand: a tensor lives from its writer to its last reader."""
    graph = read_model(model).main
    last = len(graph.operators)
    spans = []
    for tensor in graph.tensors:
        writers = [op.index + 1 for op in graph.operators if tensor.index in op.outputs] or [0]
        readers = [op.index + 1 for op in graph.operators if tensor.index in op.inputs]
        spans.append((writers[0], last if tensor.index in graph.outputs else max(readers + writers)))
    return list(graph.tensors), spans


def test_reorder_of_two_branches() -> None:
    # Both wide tensors first: 16 + 512 + 512 + ...; one branch after the other: 64 + 512 + 16.
    model = chain([64, 512, 16, 512, 16, 32], [([0], [1]), ([0], [3]), ([1], [2]), ([3], [4]), ([2, 4], [5])])
    assert footprint(model).head == 64 + 512 + 512
    assert footprint(reorder(model)).head == 64 + 512 + 16
    assert reorder(reorder(model)) == reorder(model)
