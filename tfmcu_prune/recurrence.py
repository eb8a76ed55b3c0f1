"""Recurrent layers with all their steps written out, gate by gate, in operators that TFLM has in int8."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.rules import Array

GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(layer: Any) -> Callable[..., Any]:
    """Each gate's product with the input over all steps at once, then the recurrence step by step."""
    _require_stateless(layer)
    weights = _of_gates(layer)

    def call(x: Any, initial_state: Any = None) -> Any:
        outputs, states = _unrolled(layer, weights, x, _flat(initial_state), _numbered())
        result = ops.stack(outputs, 1) if layer.return_sequences else outputs[-1]
        return [result, *states] if layer.return_state else result

    return call


def bidirectional(layer: Any) -> Callable[..., Any]:
    """Both directions, the backward one in the order of the steps where they are returned."""
    if not {type(layer.forward_layer).__name__, type(layer.backward_layer).__name__} <= set(GATES):
        return layer
    _require_stateless(layer)
    first, second = _of_gates(layer.forward_layer), _of_gates(layer.backward_layer)

    def call(x: Any, initial_state: Any = None) -> Any:
        given, do = _flat(initial_state), _numbered()
        half = len(given) // 2
        forward, states = _unrolled(layer.forward_layer, first, x, given[:half], do)
        backward, more = _unrolled(layer.backward_layer, second, x, given[half:], do)
        if layer.return_sequences:
            both = [do(ops.stack, forward, 1), do(ops.stack, backward[::-1], 1)]
        else:
            both = [forward[-1], backward[-1]]
        merged = both if layer.merge_mode is None else [_MERGES[layer.merge_mode](*both)]
        results = [*merged, *states, *more] if layer.return_state else merged
        return results if len(results) > 1 else results[0]

    return call


_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda a, b: ops.concatenate([a, b], -1),
    "sum": operator.add,
    "mul": operator.mul,
    "ave": lambda a, b: (a + b) * 0.5,
}


def _require_stateless(layer: Any) -> None:
    if layer.stateful:
        raise UnsupportedLayer(
            f"The layer {layer.name!r} ({type(layer).__name__}) keeps its states from one inference to the next "
            "(stateful=True), which the converted file cannot. Expected stateful=False: return the states with "
            "return_state=True and give them back as inputs of the model."
        )


def _flat(states: Any) -> list[Any]:
    return [] if states is None else keras.tree.flatten(states)


def _numbered() -> Callable[..., Any]:
    """A function that runs others, each under a number: the converter orders operators by their names."""
    numbers = itertools.count()

    def do(function: Callable[..., Any], *args: Any) -> Any:
        with keras.name_scope(f"{next(numbers):06d}"):
            return function(*args)

    return do


def _unrolled(
    layer: Any, weights: _Weights, x: Any, states: list[Any], do: Callable[..., Any]
) -> tuple[list[Any], list[Any]]:
    """The output of every step, in the order in which they are computed, and the last states.

    At the first step there are no states where none are given: nothing is multiplied by zeros.
    """
    step = _STEPS[type(layer).__name__]
    recurrent = [ops.convert_to_tensor(part) for part in weights.recurrent]  # one constant for all steps
    inner = None if weights.inner is None else ops.convert_to_tensor(weights.inner)
    rows = []
    for gate in range(len(weights.kernels)):
        late = gate == weights.late and not states
        rows.append([*[None] * late, *_products(layer, weights, x, gate, late, do)])
    outputs = []
    for row in zip(*rows, strict=True):
        states = step(layer, do, row, recurrent, inner, states)
        outputs.append(states[0])
    return outputs, states


def _products(layer: Any, weights: _Weights, x: Any, gate: int, late: bool, do: Callable[..., Any]) -> list[Any]:
    """A gate's product with the input at each step in running order, `late` from the second one on.

    An output of an UNPACK that nobody reads has no range, so the converter would leave all in floating point.
    """
    if late and x.shape[1] == 1:
        return []
    if late:
        x = do(operator.getitem, x, (slice(None), slice(None, -1) if layer.go_backwards else slice(1, None)))
    product, bias = do(ops.matmul, x, weights.kernels[gate]), weights.biases[gate]
    steps = do(ops.unstack, product if bias is None else do(operator.add, product, bias), None, 1)
    return list(steps)[::-1] if layer.go_backwards else list(steps)


@dataclass(frozen=True)
class _Weights:
    """The weights of a recurrent layer, apart for each gate.

    Args:
        kernels: What the input is multiplied by.
        recurrent: What the state is multiplied by.
        biases: Of the products with the input; those of a GRU's update and reset gate hold the recurrent ones as well.
        inner: The recurrent bias of a GRU's candidate, inside the product with the reset gate; `None` without.
        late: The gate that a first step without states does not need; -1 where it needs all.
    """

    kernels: Sequence[Array]
    recurrent: Sequence[Array]
    biases: Sequence[Array | None]
    inner: Array | None
    late: int


def _of_gates(layer: Any) -> _Weights:
    gates, cell = GATES[type(layer).__name__], layer.cell
    kernels, recurrent = (
        np.split(ops.convert_to_numpy(weight), gates, -1) for weight in (cell.kernel, cell.recurrent_kernel)
    )
    late = 1 if gates > 1 else -1
    if not layer.use_bias:
        return _Weights(kernels, recurrent, [None] * gates, None, late)
    biases = np.split(ops.convert_to_numpy(cell.bias), gates, -1)
    if not getattr(layer, "reset_after", False):
        return _Weights(kernels, recurrent, biases, None, late)
    *others, candidate = biases
    return _Weights(kernels, recurrent, [*(bias.sum(0) for bias in others), candidate[0]], candidate[1], -1)


def _plus_product(do: Callable[..., Any], x: Any, state: Any, kernel: Any) -> Any:
    return do(operator.add, x, do(ops.matmul, state, kernel))


def _simple_step(layer: Any, do: Any, x: Any, recurrent: Any, inner: Any, states: list[Any]) -> list[Any]:
    return [do(layer.activation, _plus_product(do, x[0], states[0], recurrent[0]) if states else x[0])]


def _lstm_step(layer: Any, do: Any, x: Any, recurrent: Any, inner: Any, states: list[Any]) -> list[Any]:
    """The carry c' = f c + i g, h' = o act(c') with the gates i, f, o and the candidate g."""
    if states:
        x = [_plus_product(do, one, states[0], kernel) for one, kernel in zip(x, recurrent, strict=True)]
    i, g = do(layer.recurrent_activation, x[0]), do(layer.activation, x[2])
    carry = do(operator.mul, i, g)
    if states:
        f = do(layer.recurrent_activation, x[1])
        carry = do(operator.add, do(operator.mul, f, states[1]), carry)
    o = do(layer.recurrent_activation, x[3])
    return [do(operator.mul, o, do(layer.activation, carry)), carry]


def _gru_step(layer: Any, do: Any, x: Any, recurrent: Any, inner: Any, states: list[Any]) -> list[Any]:
    """The state h' = g + z (h - g) with the candidate g = act(x + r (h R + b)); without `reset_after` act(x + (r h) R).

    Keras writes z h + (1 - z) g, which is one operator more.
    """
    z, r, g = x
    if not states:
        z = do(layer.recurrent_activation, z)
        if inner is not None:
            g = do(operator.add, g, do(operator.mul, do(layer.recurrent_activation, r), inner))
        g = do(layer.activation, g)
        return [do(operator.sub, g, do(operator.mul, z, g))]
    (state,) = states
    z = do(layer.recurrent_activation, _plus_product(do, z, state, recurrent[0]))
    r = do(layer.recurrent_activation, _plus_product(do, r, state, recurrent[1]))
    if layer.reset_after:
        product = do(ops.matmul, state, recurrent[2])
        product = do(operator.mul, r, product if inner is None else do(operator.add, product, inner))
    else:
        product = do(ops.matmul, do(operator.mul, r, state), recurrent[2])
    g = do(layer.activation, do(operator.add, g, product))
    return [do(operator.add, g, do(operator.mul, z, do(operator.sub, state, g)))]


_STEPS: dict[str, Callable[..., list[Any]]] = {"SimpleRNN": _simple_step, "GRU": _gru_step, "LSTM": _lstm_step}
