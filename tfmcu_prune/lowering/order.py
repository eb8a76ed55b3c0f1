"""The steps in which the converter sees the calls of a model, and their order in the file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tfmcu_prune.channels import Channels
from tfmcu_prune.graph import Call
from tfmcu_prune.rules import Flow

_MERGES = {"Add", "Multiply", "Maximum", "Minimum", "Average"}


@dataclass(frozen=True)
class Step:
    """A call, or a part of one that stands by itself in TensorFlow's graph.

    Args:
        call: The call.
        flow: What it does to channels.
        inputs: Ids of the tensors that it reads.
        outputs: Ids of the tensors that it makes; below 0 where no other call sees them.
        part: "" for all of the call; "vector" for a summand made a vector, "sum" for a merge of two, "mean" for the
            division of an average.
    """

    call: Call
    flow: Flow
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    part: str = ""


def steps(channels: Channels) -> list[Step]:
    """Return the model's steps in the order of the converted file.

    TensorFlow imports a graph in the reverse postorder of a depth-first search from the inputs, where the successors
    of a node are visited in descending order of their names (`GetReversePostOrder`); `converter` names the calls so
    that this is their number. A branch thus runs to its end before the next one starts.
    """
    fresh = itertools.count(-1, -1)
    found = [
        step
        for call, flow in zip(channels.graph.calls, channels.flows, strict=True)
        for step in _parts(channels, Step(call, flow, call.inputs, call.outputs), fresh)
    ]
    order = reverse_postorder([s.inputs for s in found], [s.outputs for s in found], channels.graph.input_layers)
    return [found[place] for place in order]


def reverse_postorder(
    reads: Sequence[Sequence[int]], writes: Sequence[Sequence[int]], given: Iterable[int]
) -> list[int]:
    """Return the order in which TensorFlow imports nodes that are named by their numbers.

    Args:
        reads: Ids of the tensors that each node reads.
        writes: Ids of the tensors that it makes.
        given: Ids of the tensors that come from outside.
    """
    readers: dict[int, list[int]] = {}
    for place, ids in enumerate(reads):
        for key in dict.fromkeys(ids):
            readers.setdefault(key, []).append(place)
    order: list[int] = []
    seen: set[int] = set()
    stack = [(place, False) for place, ids in enumerate(reads) if not ids]
    stack += [(place, False) for key in given for place in readers.get(key, [])]
    while stack:
        place, leaving = stack.pop()
        if leaving:
            order.append(place)
        elif place not in seen:
            seen.add(place)
            after = sorted({reader for key in writes[place] for reader in readers.get(key, [])})
            stack += [(place, True), *((reader, False) for reader in after)]
    return order[::-1]


def _parts(channels: Channels, step: Step, fresh: itertools.count[int]) -> Sequence[Step]:
    """A merge of several tensors goes two by two; a summand at a single place is taken for a bias, a vector."""
    kind, ids = type(step.call.layer).__name__, list(step.inputs)
    if kind not in _MERGES or len(ids) < 2:
        return [step]
    parts: list[Step] = []
    if kind in ("Add", "Average") and _alone(channels, ids):
        for number, key in enumerate(ids[1:], 1):
            ids[number] = next(fresh)
            parts.append(replace(step, inputs=(key,), outputs=(ids[number],), part="vector"))
    left = ids[0]
    for other in ids[1:]:
        result = next(fresh)
        parts.append(replace(step, inputs=(left, other), outputs=(result,), part="sum"))
        left = result
    if kind == "Average":
        parts.append(replace(step, inputs=(left,), part="mean"))
    parts[-1] = replace(parts[-1], outputs=step.outputs)
    return parts


def _alone(channels: Channels, ids: Sequence[int]) -> bool:
    shapes = {channels.labels[key].shape for key in ids}
    return len(shapes) == 1 and all(size == 1 for shape in shapes for size in shape[:-1])
