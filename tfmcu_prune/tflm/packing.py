"""Place buffers with known lifetimes in as little memory as possible.

Every packing can be pushed down until each buffer lies on the floor or on another buffer; read from the bottom up,
such a packing is a sequence in which each buffer rests on the skyline of those before it. So the search runs over
sequences with offsets that do not fall, and cuts a branch when what is left over at some time cannot fit any more,
or when a buffer would leave a gap that another could still fill.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from .planner import Buffer, extent, first_gap, greedy, lower_bound

NODES = 20_000
_TRIALS = 300


def pack(buffers: Sequence[Buffer], nodes: int = NODES) -> list[int]:
    """Return offsets that use as little memory as the search finds; never more than TFLM's greedy placement.

    Args:
        buffers: What to place; fixed offsets are ignored.
        nodes: Steps of the exact search before it gives up and the best packing so far stands.

    Returns:
        The offset of each buffer. The packing is optimal if the exact search ended, or its height is the lower bound.
    """
    best = greedy([Buffer(buffer.size, buffer.first, buffer.last) for buffer in buffers])
    bound = lower_bound(buffers)
    if extent(buffers, best) > bound:
        best = min(best, _swaps(buffers, bound), key=lambda offsets: extent(buffers, offsets))
    if extent(buffers, best) > bound:
        found = _Search(buffers, extent(buffers, best), bound, nodes).run()
        best = found if found is not None else best
    return best


def _swaps(buffers: Sequence[Buffer], bound: int) -> list[int]:
    """Improve the order in which first-fit places the buffers, by exchanging two of them at a time."""
    generator = random.Random(0)
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, -i))
    best, height = _first_fit(buffers, order)
    for _ in range(_TRIALS):
        if height == bound:
            break
        i, j = generator.randrange(len(order)), generator.randrange(len(order))
        order[i], order[j] = order[j], order[i]
        offsets, value = _first_fit(buffers, order)
        if value <= height:
            best, height = offsets, value
        else:
            order[i], order[j] = order[j], order[i]
    return best


def _first_fit(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int]] = []
    for rank, i in enumerate(order):
        offsets[i] = first_gap(buffers[i], sorted(placed), buffers)
        placed.append((offsets[i], rank, i))
    return offsets, extent(buffers, offsets)


class _Search:
    """Depth-first search for a packing lower than `height`, until `bound` is reached or the nodes are used up."""

    def __init__(self, buffers: Sequence[Buffer], height: int, bound: int, nodes: int) -> None:
        self.height, self.bound, self.nodes = height, bound, nodes
        self.sizes = [buffer.size for buffer in buffers]
        times = sorted({buffer.first for buffer in buffers})  # the most is alive when a life begins
        self.lives = [[t for t, at in enumerate(times) if b.first <= at <= b.last] for b in buffers]
        self.top = [0] * len(times)
        self.left = [0] * len(times)
        for size, life in zip(self.sizes, self.lives, strict=True):
            for t in life:
                self.left[t] += size
        self.offsets = [0] * len(buffers)
        self.open = {i for i, size in enumerate(self.sizes) if size}
        self.best: list[int] | None = None

    def run(self) -> list[int] | None:
        """Return the best packing, `None` if none is lower than the height given."""
        self._descend(0)
        return self.best

    def _descend(self, floor: int) -> None:
        self.nodes -= 1
        if not self.open:
            self.best = list(self.offsets)
            self.height = max((offset + size for offset, size in zip(self.offsets, self.sizes, strict=True)), default=0)
            return
        if any(left and max(floor, top) + left >= self.height for left, top in zip(self.left, self.top, strict=True)):
            return
        rests = {i: max(self.top[t] for t in self.lives[i]) for i in self.open}
        # A buffer that starts above the end of another that could still go below leaves a gap for nothing.
        limit = min(max(rest, floor) + self.sizes[i] for i, rest in rests.items())
        choices = [i for i, rest in rests.items() if floor <= rest < limit]
        for i in sorted(choices, key=lambda i: (rests[i], -self.sizes[i] * len(self.lives[i]), i)):
            if self.nodes <= 0 or self.height <= self.bound:
                return
            self._place(i, rests[i])

    def _place(self, i: int, offset: int) -> None:
        life, size = self.lives[i], self.sizes[i]
        before = [self.top[t] for t in life]
        self.open.discard(i)
        self.offsets[i] = offset
        for t in life:
            self.top[t] = offset + size
            self.left[t] -= size
        self._descend(offset)
        for t, top in zip(life, before, strict=True):
            self.top[t] = top
            self.left[t] += size
        self.open.add(i)
