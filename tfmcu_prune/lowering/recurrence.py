"""Recurrent layers, step by step as `tfmcu_prune.recurrence` writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call
from tfmcu_prune.lowering.elementwise import activate, constant
from tfmcu_prune.lowering.order import reverse_postorder
from tfmcu_prune.program import Builder
from tfmcu_prune.recurrence import GATES
from tfmcu_prune.rules import Array, Flow, first_row


def recurrent(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> tuple[int, ...]:
    start, layer = len(program.operators), call.layer
    run = _Run(program, call, layer, _units(program, flow, layer, "cell"))
    outputs, states = run.steps(inputs[0], inputs[1:])
    results = [run.packed(outputs) if layer.return_sequences else outputs[-1]]
    _reorder(program, start, inputs)
    return (*results, *states) if layer.return_state else tuple(results)


def bidirectional(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> tuple[int, ...]:
    start, layer, half = len(program.operators), call.layer, (len(inputs) - 1) // 2
    parts = []
    for name, given in (("forward_layer", inputs[1 : 1 + half]), ("backward_layer", inputs[1 + half :])):
        part = getattr(layer, name)
        if type(part).__name__ not in GATES:
            program.estimated[call.name] = None
            return tuple(program.emit("Bidirectional", call, inputs, labels) for labels in flow.outputs)
        run = _Run(program, call, part, _units(program, flow, part, f"{name}.cell"), name)
        parts.append((run, *run.steps(inputs[0], given)))
    (run, forward, states), (other, backward, more) = parts
    if layer.return_sequences:
        both = [run.packed(forward), other.packed(backward[::-1])]
    else:
        both = [forward[-1], backward[-1]]
    merged = both if layer.merge_mode is None else [_merged(program, call, layer.merge_mode, both)]
    _reorder(program, start, inputs)
    return (*merged, *states, *more) if layer.return_state else tuple(merged)


def _merged(program: Builder, call: Call, mode: str, both: Sequence[int]) -> int:
    labels = [program.activations[index] for index in both]
    if mode == "concat":
        return program.emit("CONCATENATION", call, both, np.concatenate(labels, -1))
    index = program.emit("MUL" if mode == "mul" else "ADD", call, both, labels[0])
    return constant(program, call, index, "MUL", None, 0.5) if mode == "ave" else index


def _units(program: Builder, flow: Flow, layer: Any, prefix: str) -> Array:
    """The labels of a cell's units; a layer whose states go outside has no labels of its own."""
    columns = flow.weights.get(f"{prefix}.kernel", (None, None))[1]
    return np.full(layer.units, program.fixed) if columns is None else np.asarray(columns)[: layer.units]


def _reorder(program: Builder, start: int, inputs: Sequence[int]) -> None:
    """Put the operators from `start` on into the order of the file, where the sequence is met before the states."""
    own = program.operators[start:]
    order = reverse_postorder([o.inputs for o in own], [o.outputs for o in own], [*inputs[1:], inputs[0]])
    program.operators[start:] = [own[place] for place in order]


@dataclass(frozen=True)
class _Run:
    """One direction of a recurrent layer.

    Args:
        program: Where its operators go.
        call: The call.
        layer: The recurrent layer: that of the call or one in it.
        units: Labels of its units.
        name: What tells its weights from those of another direction.
    """

    program: Builder
    call: Call
    layer: Any
    units: Array
    name: str = ""

    def steps(self, x: int, states: Sequence[int]) -> tuple[list[int], Sequence[int]]:
        """Emit all the steps; return the output of each in running order, and the last states."""
        kind = type(self.layer).__name__
        late = 1 if kind != "SimpleRNN" and not self._inner and not states else -1
        rows = [[-1] * (gate == late) + self._products(x, gate, gate == late) for gate in range(GATES[kind])]
        step = {"SimpleRNN": self._simple, "GRU": self._gru, "LSTM": self._lstm}[kind]
        outputs = []
        for row in zip(*rows, strict=True):
            states = step(row, states)
            outputs.append(states[0])
        return outputs, states

    @property
    def _inner(self) -> bool:
        """Whether a GRU has a bias inside the product with the reset gate."""
        return bool(self.layer.use_bias and getattr(self.layer, "reset_after", False))

    def _products(self, x: int, gate: int, late: bool) -> list[int]:
        program, call, labels = self.program, self.call, self.program.activations[x]
        rows, backwards = first_row(labels), self.layer.go_backwards
        if late:
            if len(labels) == 1:
                return []
            labels = labels[:-1] if backwards else labels[1:]
            x = program.emit("STRIDED_SLICE", call, [x], labels, constants=(12, 12, 12))
        all_steps = np.broadcast_to(self.units, (len(labels), len(self.units)))
        product = program.emit(
            "FULLY_CONNECTED", call, [x], all_steps, kernel=(rows, self.units, 1), weight=f"{self.name}kernel{gate}",
            bias=self.layer.use_bias, macs=(rows, 1),
        )  # fmt: skip
        steps = program.emit_several("UNPACK", call, [product], list(all_steps))
        return list(steps)[::-1] if backwards else list(steps)

    def packed(self, steps: Sequence[int]) -> int:
        labels = np.broadcast_to(self.units, (len(steps), len(self.units)))
        return self.program.emit("PACK", self.call, steps, labels)

    def _emit(self, kind: str, *inputs: int) -> int:
        return self.program.emit(kind, self.call, inputs, self.units)

    def _product(self, state: int, gate: int, bias: bool = False) -> int:
        return self.program.emit(
            "FULLY_CONNECTED", self.call, [state], self.units, kernel=(self.units, self.units, 1),
            weight=f"{self.name}recurrent{gate}", bias=bias, macs=(self.units, 1),
        )  # fmt: skip

    def _plus_product(self, x: int, state: int, gate: int) -> int:
        return self._emit("ADD", x, self._product(state, gate))

    def _act(self, index: int, name: str = "activation") -> int:
        one_step = dataclasses.replace(self.call, shapes=((1, len(self.units)),))
        return activate(self.program, one_step, index, getattr(self.layer, name).__name__)

    def _gate(self, index: int) -> int:
        return self._act(index, "recurrent_activation")

    def _simple(self, x: Sequence[int], states: Sequence[int]) -> list[int]:
        return [self._act(self._plus_product(x[0], states[0], 0) if states else x[0])]

    def _lstm(self, x: Sequence[int], states: Sequence[int]) -> list[int]:
        if states:
            x = [self._plus_product(one, states[0], gate) for gate, one in enumerate(x)]
        i, g = self._gate(x[0]), self._act(x[2])
        carry = self._emit("MUL", i, g)
        if states:
            f = self._gate(x[1])
            carry = self._emit("ADD", self._emit("MUL", f, states[1]), carry)
        o = self._gate(x[3])
        return [self._emit("MUL", o, self._act(carry)), carry]

    def _gru(self, x: Sequence[int], states: Sequence[int]) -> list[int]:
        z, r, g = x
        if not states:
            z = self._gate(z)
            if self._inner:
                scaled = constant(self.program, self.call, self._gate(r), "MUL", self.units)
                g = self._emit("ADD", g, scaled)
            g = self._act(g)
            return [self._emit("SUB", g, self._emit("MUL", z, g))]
        (state,) = states
        z = self._gate(self._plus_product(z, state, 0))
        r = self._gate(self._plus_product(r, state, 1))
        if self.layer.reset_after:
            product = self._emit("MUL", r, self._product(state, 2, self._inner))
        else:
            product = self._product(self._emit("MUL", r, state), 2)
        g = self._act(self._emit("ADD", g, product))
        return [self._emit("ADD", g, self._emit("MUL", z, self._emit("SUB", state, g)))]
