"""Write a memory plan into a .tflite file that is better than the one TFLM would make."""

from __future__ import annotations

import os
import struct
from dataclasses import replace

from . import targets
from .arena import Arena, simulate
from .edit import add_metadata
from .footprint import estimate
from .packing import pack
from .planner import ONLINE, align, extent, greedy, lower_bound
from .schema import PLAN_NAME, Model, load, read_model


def plan(data: bytes | str | os.PathLike[str], *, target: str = "cortex-m4", kernels: str = "cmsis-nn") -> bytes:
    """Write an optimal or near-optimal memory plan into a model, as metadata that TFLM honours.

    TFLM places the planned tensors as told, and the scratch buffers of its kernels greedily around them; the plan
    leaves room for those of the target. On another target it stays correct, but its arena may be larger or smaller.
    The plan is optimal if its head equals `Footprint.lower_bound`, or if the search ended within its bound (which
    small graphs do); it is never worse than TFLM's own.

    Args:
        data: The bytes of a .tflite file, or its path.
        target: The processor whose scratch buffers count, as in `footprint`.
        kernels: The kernels, as in `footprint`.

    Returns:
        The bytes of the model with `OfflineMemoryAllocation` metadata (12 + 4 bytes for each tensor, and about 200);
        as it came if no plan is better.

    Raises:
        InvalidModel: The bytes are not a .tflite model that TFLM could load.

    Source:
        tensorflow/tflite-micro 90b983c2, micro/docs/memory_management.md, "Offline memory planning".
    """
    raw = load(data)
    planned = best_plan(raw, target, kernels)
    if planned is None:
        return raw
    before = estimate(read_model(raw), target, kernels)
    after = estimate(read_model(planned), target, kernels)
    return planned if after.arena < before.arena else raw


def best_plan(raw: bytes, target: str, kernels: str) -> bytes | None:
    """Return the model with a plan of a smaller head, `None` if there is none."""
    model = read_model(raw)
    processor = targets.find_target(target)
    arena = simulate(replace(model, plan=None), processor, targets.find_kernels(kernels, processor))
    if _arena(arena, lower_bound(arena.buffers)) == _arena(arena, arena.head):
        return None
    offsets = pack(arena.buffers)
    fixed = [
        replace(buffer, offset=offset if buffer.tensor >= 0 else ONLINE)
        for buffer, offset in zip(arena.buffers, offsets, strict=True)
    ]
    if extent(fixed, greedy(fixed)) >= arena.head:
        return None
    return add_metadata(raw, PLAN_NAME, _payload(model, {(b.subgraph, b.tensor): b.offset for b in fixed}))


def _arena(arena: Arena, head: int) -> int:
    """Return what the arena would be with a head of that size."""
    return align(max(head + arena.tail, arena.phases["prepare"], arena.phases["planning"]))


def _payload(model: Model, offsets: dict[tuple[int, int], int]) -> bytes:
    values = [
        offsets.get((number, tensor.index), ONLINE)
        for number, graph in enumerate(model.subgraphs)
        for tensor in graph.tensors
    ]
    return struct.pack(f"<{3 + len(values)}i", 1, 0, len(values), *values)
