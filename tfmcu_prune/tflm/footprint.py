"""What a .tflite file costs on TensorFlow Lite Micro: arena, flash, code, stack, multiply-accumulates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..budget import Budget, Resources
from ..errors import BudgetError
from . import targets
from .arena import Arena, simulate
from .blame import cause
from .code_size import code_size
from .doubts import doubts
from .kernels import KERNELS
from .macs import macs
from .planner import align, live_bytes, lower_bound
from .prepare import Prepare
from .schema import Model, Operator, Tensor, read_model
from .table import render


@dataclass(frozen=True)
class OperatorCost:
    """What one operator costs.

    Args:
        index: Its place in the order of execution.
        name: Its TFLite name.
        live: Bytes of activations and scratch alive while it runs, each rounded up to 16.
        scratch: Bytes of its own scratch buffers, a part of `live`.
        weights: Bytes of the constants that it reads.
        macs: Multiply-accumulates.
        output: Shape of its first output.
    """

    index: int
    name: str
    live: int
    scratch: int
    weights: int
    macs: int
    output: tuple[int, ...]


@dataclass(frozen=True)
class Peak:
    """Why the arena is as large as it is.

    Args:
        operator: The operator at which most bytes are alive, its index.
        name: Its TFLite name.
        live: What is alive there and how large, bytes, the largest first.
        phase: The phase that binds the arena: "final" (activations and persistent data), "prepare" (the temporary
            structs while operator `preparing` starts) or "planning" (TFLM's memory planner).
        preparing: The operator whose preparation needs most, its index.
    """

    operator: int
    name: str
    live: tuple[tuple[str, int], ...]
    phase: str
    preparing: int


@dataclass(frozen=True)
class Footprint:
    """What a .tflite file costs on TensorFlow Lite Micro; every size in bytes.

    Args:
        arena: The smallest safe tensor arena, a multiple of 16: the number to write into the sketch. It may exceed
            `arena_used`, because TFLM needs more while it starts than afterwards.
        arena_used: What `MicroInterpreter::arena_used_bytes()` reports.
        flash: The .tflite file.
        macs: Multiply-accumulates of one inference.
        head: The planned activations and scratch buffers.
        tail: The persistent allocations.
        lower_bound: The head that no memory plan can go under in this order of operators.
        code: TFLM and the kernels that the model needs, registered by AddConv2D() and so on; `None` if the build
            was not measured for the target.
        code_int8: The same with CMSIS-NN's int8-only registrations, AddConv2D(Register_CONV_2D_INT8()).
        stack: A bound for the stack of AllocateTensors() and Invoke(); `None` if it was not measured.
        parts: The arena by what it holds.
        phases: What each phase needs: "final", "prepare", "planning".
        peak: The operator that sets the peak, and why.
        operators: The operators in their order of execution.
        uncertain: Figures that are lower bounds only ("arena", "macs", "code"), with the reason.
        target: The target that was asked for.
        kernels: The kernels it runs: "reference" where CMSIS-NN does not exist.
    """

    arena: int
    arena_used: int
    flash: int
    macs: int
    head: int
    tail: int
    lower_bound: int
    code: int | None
    code_int8: int | None
    stack: int | None
    parts: Mapping[str, int]
    phases: Mapping[str, int]
    peak: Peak
    operators: tuple[OperatorCost, ...]
    uncertain: Mapping[str, str]
    target: str
    kernels: str

    @property
    def resources(self) -> Resources:
        """The three figures that a budget limits."""
        return Resources(self.arena, self.flash, self.macs)

    def require(self, budget: Budget) -> None:
        """Check that the model fits a budget.

        Args:
            budget: The limits.

        Raises:
            BudgetError: A figure exceeds its limit, or is a lower bound only, so that fitting cannot be promised.
        """
        problems = []
        for name, limit in budget.limits().items():
            value = getattr(self, name)
            if value > limit:
                problems.append(f"{name} exceeds its budget by {value - limit:,}: {cause(self, name)}. "
                                f"Expected: at most {limit:,}. Received: {value:,}")  # fmt: skip
            elif name in self.uncertain:
                problems.append(f"{name} is at least {value:,}, but how much is not known: {self.uncertain[name]}")
        if problems:
            raise BudgetError(
                f"The model does not fit its budget on {self.target} with {self.kernels} kernels. "
                + "; ".join(problems)
            )

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain dicts, lists, numbers and strings, for JSON."""
        result = asdict(self)
        result["peak"]["live"] = [{"what": what, "bytes": size} for what, size in self.peak.live]
        for operator in result["operators"]:
            operator["output"] = list(operator["output"])
        result["operators"] = list(result["operators"])
        return result

    def __str__(self) -> str:
        return render(self)


def footprint(
    data: bytes | str | os.PathLike[str], *, target: str = "cortex-m4", kernels: str = "cmsis-nn"
) -> Footprint:
    """Predict what a .tflite file costs on TensorFlow Lite Micro, to the byte, without running it.

    TFLM's start is simulated allocation by allocation with the sizes of the target's build. The result equals what
    TFLM does for every operator that TFLM registers; what is not known is listed in `Footprint.uncertain`.

    Args:
        data: The bytes of a .tflite file, or its path.
        target: One of "cortex-m0", "cortex-m0+", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55",
            "cortex-m85", "esp32", and "x86-64" (the tflite-micro wheel of PyPI).
        kernels: "cmsis-nn" or "reference". Where CMSIS-NN does not exist (esp32, x86-64) it is "reference".

    Returns:
        The `Footprint`.

    Raises:
        InvalidModel: The bytes are not a .tflite model that TFLM could load.
        ValueError: An unknown target or kernels.

    Example:
        >>> import tfmcu_prune
        >>> tfmcu_prune.footprint("model.tflite", target="cortex-m4").arena  # doctest: +SKIP
        51616

    Source:
        tensorflow/tflite-micro 90b983c2 and ARM-software/CMSIS-NN 4ab83cc3; checked against Cortex-M4 and Cortex-M55
        under QEMU and against the wheel.
    """
    return estimate(read_model(data), target, kernels)


def estimate(model: Model, target: str, kernels: str) -> Footprint:
    """Return the footprint of a model that is read already."""
    processor = targets.find_target(target)
    kernels = targets.find_kernels(kernels, processor)
    arena = simulate(model, processor, kernels)
    phase = max(arena.phases, key=lambda name: arena.phases[name])
    operators = _operators(model, arena, processor, kernels)
    uncertain = doubts(model, arena.unknown, kernels)
    code, code_int8 = _code(model, processor, kernels, uncertain)
    return Footprint(
        arena=align(arena.phases[phase]),
        arena_used=arena.head + arena.tail,
        flash=model.nbytes,
        macs=sum(operator.macs for operator in operators),
        head=arena.head,
        tail=arena.tail,
        lower_bound=lower_bound(arena.buffers),
        code=code,
        code_int8=code_int8,
        stack=targets.stack(processor, kernels),
        parts={"planned": arena.head, **arena.parts},
        phases=arena.phases,
        peak=_peak(model, arena, phase),
        operators=operators,
        uncertain=uncertain,
        target=target,
        kernels=kernels,
    )


def _operators(model: Model, arena: Arena, target: targets.Target, kernels: str) -> tuple[OperatorCost, ...]:
    live = live_bytes(arena.buffers)
    graph = model.main
    costs = []
    for operator in graph.operators:
        first, last = arena.scopes[0, operator.index]
        reads = {i for i in operator.inputs if i >= 0 and graph.tensors[i].constant}
        costs.append(
            OperatorCost(
                index=operator.index,
                name=operator.name,
                live=max(live.get(scope, 0) for scope in range(first, last + 1)),
                scratch=sum(arena.scratch[0, operator.index]),
                weights=sum(graph.tensors[i].nbytes for i in reads),
                macs=macs(Prepare(graph, operator, target, kernels)),
                output=graph.tensors[operator.outputs[0]].shape if operator.outputs else (),
            )
        )
    return tuple(costs)


def _peak(model: Model, arena: Arena, phase: str) -> Peak:
    live = live_bytes(arena.buffers)
    spans = {key: max(live.get(scope, 0) for scope in range(first, last + 1)) for key, (first, last) in
             arena.scopes.items() if key[0] == 0}  # fmt: skip
    if not spans:
        return Peak(-1, "", (), phase, -1)
    key = max(spans, key=lambda key: spans[key])
    first, last = arena.scopes[key]
    alive = [buffer for buffer in arena.buffers if buffer.first <= last and first <= buffer.last]
    named = [(_name(model, buffer.subgraph, buffer.tensor, buffer.operator), buffer.size) for buffer in alive]
    operator = model.main.operators[key[1]]
    return Peak(key[1], operator.name, tuple(sorted(named, key=lambda item: -item[1])), phase, arena.preparing[1])


def _name(model: Model, subgraph: int, tensor: int, operator: int) -> str:
    graph = model.subgraphs[subgraph]
    if tensor < 0:
        return f"scratch of {graph.operators[operator].name} {operator}"
    return f"tensor {tensor} {_shape(graph.tensors[tensor])}: {_role(graph.operators, tensor)}"


def _shape(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {tensor.type}"


def _role(operators: tuple[Operator, ...], tensor: int) -> str:
    for operator in operators:
        if tensor in operator.outputs:
            return f"output of {operator.name} {operator.index}"
    return "input of the model"


def _code(
    model: Model, target: targets.Target, kernels: str, uncertain: dict[str, str]
) -> tuple[int | None, int | None]:
    if not target.code:
        return None, None
    names = [operator.name for graph in model.subgraphs for operator in graph.operators if operator.name in KERNELS]
    code, unknown = code_size(names, target.code, kernels)
    int8, _ = code_size(names, target.code, "cmsis-nn-int8" if kernels == "cmsis-nn" else kernels)
    if unknown:
        uncertain.setdefault("code", f"no sizes are known for {', '.join(unknown)}")
    elif target.name != target.code:
        uncertain.setdefault("code", f"measured on {target.code}; {target.name} differs by its instruction set")
    return code, int8
