"""The order in which the converter puts the operators of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmcu_prune.graph import Graph


Node = tuple[int, int]  # place of a call in the graph; number of its input that is reshaped, or -1 for the call itself


def converter_order(graph: Graph, reshaped: Mapping[int, Sequence[int]]) -> list[Node]:
    """Return the calls in the order of the converted file.

    TensorFlow imports a graph in the reverse postorder of a depth-first search from the inputs, where the successors
    of a node are visited in descending order of their names (`GetReversePostOrder`); `converter` names the calls so
    that this is their number. A branch thus runs to its end before the next one starts.

    Args:
        graph: The model's graph.
        reshaped: Place of a call -> numbers of its inputs that are reshaped for it before the import.
    """
    readers: dict[int, list[Node]] = {}
    for place, call in enumerate(graph.calls):
        for number, id in enumerate(call.inputs):
            node = (place, number if number in reshaped.get(place, ()) else -1)
            readers.setdefault(id, []).append(node)
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [((place, -1), False) for place, call in enumerate(graph.calls) if not call.inputs]
    stack += [(node, False) for id in graph.input_layers for node in sorted(readers.get(id, []))]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            place, number = node
            after = {reader for id in graph.calls[place].outputs for reader in readers.get(id, [])}
            stack += [(node, True), *((next_, False) for next_ in (sorted(after) if number < 0 else [(place, -1)]))]
    return order[::-1]
