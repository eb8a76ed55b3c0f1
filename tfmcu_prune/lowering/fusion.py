"""What the TFLite converter fuses, folds and drops, as rewrites of pairs of operators.

Observed on TensorFlow 2.21; the names in its source are those of tensorflow/compiler/mlir/lite/transforms/optimize*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from tfmcu_prune.program import Operator
from tfmcu_prune.rules import Array

_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}
_WEIGHTED = {*_CONVOLUTIONS, "FULLY_CONNECTED"}
_ACTIVATED = {*_WEIGHTED, "ADD", "SUB", "MUL", "DIV", "MAX_POOL_2D", "AVERAGE_POOL_2D"}
_AFFINE = {"ADD", "SUB", "MUL", "DIV"}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}
_OWN_SCALE = {"LOGISTIC", "TANH", "SOFTMAX"}
_ONE_SCALE = {"CONCATENATION", "PACK"}
_TOLD_BY_FIELDS = {  # two of these with equal fields on equal inputs compute the same
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "PAD", "CONCATENATION", "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"),
    *("RELU", "RELU6", "LOGISTIC", "TANH", "HARD_SWISH", "SOFTMAX", "SQUARED_DIFFERENCE"),
}


def fuse(
    operators: Sequence[Operator], activations: Sequence[Array], outputs: Sequence[int]
) -> tuple[tuple[Operator, ...], tuple[int, ...]]:
    """Return the operators that are left and the model's outputs.

    An operator that takes in another stands where the later of both stood.
    """
    shared, names = _shared(operators, activations, _TOLD_BY_FIELDS - {"PAD"})
    fused = _Fusion(_hard_swish(shared, outputs), activations, [names.get(a, a) for a in outputs])
    left, names = _shared(fused.alive(), activations, _TOLD_BY_FIELDS)
    return tuple(left), tuple(names.get(a, a) for a in fused.outputs)


def requantize(operators: Sequence[Operator], add: Callable[[int], int]) -> list[Operator]:
    """Put a QUANTIZE behind what has a scale of its own and goes into an operator whose operands share one.

    Args:
        operators: The operators.
        add: Makes an activation shaped as another one; returns its index.
    """
    joined = {a for operator in operators if operator.kind in _ONE_SCALE for a in operator.inputs}
    names: dict[int, int] = {}
    result = []
    for operator in operators:
        result.append(replace(operator, inputs=tuple(names.get(a, a) for a in operator.inputs)))
        if operator.kind in _OWN_SCALE and operator.output in joined:
            names[operator.output] = add(operator.output)
            result.append(Operator("QUANTIZE", operator.layer, operator.outputs, (names[operator.output],)))
    return result


def _shared(
    operators: Sequence[Operator], activations: Sequence[Array], kinds: set[str]
) -> tuple[list[Operator], dict[int, int]]:
    """Equal operators on equal inputs once; the index that each output now has."""
    names: dict[int, int] = {}
    seen: dict[tuple[object, ...], Operator] = {}
    kept = []
    for operator in operators:
        operator = replace(operator, inputs=tuple(names.get(a, a) for a in operator.inputs))
        if operator.kind in kinds and operator.kernel is None:
            shapes = tuple(activations[a].shape for a in operator.outputs)
            twin = seen.setdefault((replace(operator, layer="", outputs=()), shapes), operator)
            if twin is not operator:
                names.update(zip(operator.outputs, twin.outputs, strict=True))
                continue
        kept.append(operator)
    return kept, names


def _hard_swish(operators: Sequence[Operator], outputs: Sequence[int]) -> list[Operator]:
    """Find x * relu6(x + 3) / 6, the factor before or behind the product."""
    maker = {operator.outputs[0]: operator for operator in operators}
    uses = Counter([*outputs, *(a for operator in operators for a in operator.inputs)])

    def alone(a: int, *kinds: str) -> Operator | None:
        found = maker.get(a)
        return found if found is not None and found.kind in kinds and uses[a] == 1 else None

    def shifted(a: int) -> int | None:
        clipped = alone(a, "RELU6")
        sum_ = alone(clipped.inputs[0], "ADD") if clipped else None
        return sum_.inputs[0] if sum_ is not None and _is_constant(sum_) else None

    result = []
    for operator in operators:
        if operator.kind in ("MUL", "DIV"):
            product = alone(operator.inputs[0], "MUL") if _is_constant(operator) else operator
            for x, gate in _pairs(product):
                scaled = alone(gate, "MUL", "DIV") if product is operator else None
                source = shifted(scaled.inputs[0] if scaled is not None and _is_constant(scaled) else gate)
                if source == x and (product is not operator or scaled is not None):
                    operator = replace(operator, kind="HARD_SWISH", inputs=(x,), kernel=None)
                    break
        result.append(operator)
    return result


def _pairs(product: Operator | None) -> list[tuple[int, int]]:
    if product is None or len(product.inputs) != 2:
        return []
    a, b = product.inputs
    return [(a, b), (b, a)]


class _Fusion:
    """Walks the operators; `done` holds what is left of those before, by their places."""

    def __init__(self, operators: Sequence[Operator], activations: Sequence[Array], outputs: Sequence[int]) -> None:
        self.activations, self.outputs = activations, list(outputs)
        self.uses = Counter([*outputs, *(a for operator in operators for a in operator.inputs)])
        self.done: dict[int, Operator] = {}
        self.maker: dict[int, int] = {}
        names: dict[int, int] = {}
        for place, operator in enumerate(operators):
            operator = replace(operator, inputs=tuple(names.get(a, a) for a in operator.inputs))
            merged: Operator | None = operator
            while merged is not None:
                operator = merged
                merged = self._merged(operator)
            if self._does_nothing(operator):
                names[operator.output] = operator.inputs[0]
                self.uses[operator.inputs[0]] += self.uses[operator.output] - 1
                continue
            self.done[place] = operator
            self.maker.update(dict.fromkeys(operator.outputs, place))
        self.outputs = [names.get(a, a) for a in outputs]

    def _does_nothing(self, operator: Operator) -> bool:
        """A RESHAPE to the same shape (a bias has no batch axis), or the mean of one place."""
        shape = self.activations[operator.output].shape
        equal = shape == self.activations[operator.inputs[0]].shape
        if operator.kind == "RESHAPE":
            return equal and operator.constants != (4,)
        return operator.kind == "MEAN" and equal

    def _merged(self, operator: Operator) -> Operator | None:
        """The operator with the one that makes its first input taken in, if they go together."""
        place = self.maker.get(operator.inputs[0], -1) if operator.inputs else -1
        before = self.done.get(place)
        if before is None or len(before.outputs) > 1:
            return None
        if before.kind == operator.kind == "RESHAPE":
            self.uses[before.output] -= 1
            self.uses[before.inputs[0]] += int(self.uses[before.output] > 0)
            return replace(operator, inputs=before.inputs)
        if self.uses[before.output] != 1:
            return None
        for rule in _RULES:
            merged = rule(before, operator, self.activations)
            if merged is not None:
                self.done.pop(place)
                return merged
        return None

    def alive(self) -> tuple[Operator, ...]:
        """Return the operators whose outputs somebody reads."""
        wanted, kept = set(self.outputs), list[Operator]()
        for operator in reversed(self.done.values()):
            if wanted & set(operator.outputs):
                kept.append(operator)
                wanted |= set(operator.inputs)
        return tuple(reversed(kept))


def _activation(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    if after.kind in _ACTIVATIONS and before.kind in _ACTIVATED and before.fused in ("", after.kind):
        return replace(before, fused=after.kind, outputs=after.outputs)
    return None


def _affine_behind(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    """A factor or summand a channel goes into the kernel and the bias; also one constant summand into another."""
    if not _is_constant(after) or before.fused:
        return None
    if before.kind in _WEIGHTED and _is_channelwise(after):
        summand = after.kind in ("ADD", "SUB")
        bias, zeros = before.bias or summand, before.zeros and not summand
        return replace(before, bias=bias, zeros=zeros, outputs=after.outputs, fused=after.fused)
    if before.kind == after.kind == "ADD" and _is_constant(before) and _is_scalar(before) and _is_scalar(after):
        return replace(before, outputs=after.outputs, fused=after.fused)
    return None


def _affine_before(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    """A scalar goes into the kernel behind it, a summand only where no padding would see it; into a dense one all."""
    if not _is_constant(before) or before.fused:
        return None
    if after.kind == "FULLY_CONNECTED":
        return replace(after, inputs=before.inputs, bias=after.bias or before.kind in ("ADD", "SUB"))
    if after.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or not _is_scalar(before):
        return None
    factor = before.kind in ("MUL", "DIV")
    padded = after.window is not None and after.window.same
    return replace(after, inputs=before.inputs, bias=after.bias or not factor) if factor or not padded else None


def _pad(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    """Explicit padding that is what "SAME" would be."""
    window = after.window
    if before.kind != "PAD" or after.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or window is None or window.same:
        return None
    same = replace(window, same=True)
    places = activations[before.inputs[0]].shape[:2]
    if len(before.pads) != 3 or [*same.padding(places), (0, 0)] != list(before.pads):
        return None
    return replace(after, inputs=before.inputs, window=same)


def _kept_dimensions(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    """A mean over places in the shape that `keepdims` gives."""
    if not before.axes or before.kind == "RESHAPE" or after.kind != "RESHAPE" or after.axes:
        return None
    taken = activations[before.inputs[0]].shape
    wanted = tuple(1 if axis in before.axes else size for axis, size in enumerate(taken))
    if activations[after.output].shape != wanted or activations[before.output].shape == wanted:
        return None
    return replace(before, outputs=after.outputs)


def _flat(before: Operator, after: Operator, activations: Sequence[Array]) -> Operator | None:
    """A dense layer takes (1, 1, channels) as it is."""
    if before.kind != "RESHAPE" or after.kind != "FULLY_CONNECTED" or activations[after.output].ndim != 1:
        return None
    same_rows = activations[before.inputs[0]].shape[-1] == activations[before.output].shape[-1]
    return replace(after, inputs=before.inputs) if same_rows else None


_RULES: tuple[Callable[[Operator, Operator, Sequence[Array]], Operator | None], ...] = (
    _activation,
    _affine_behind,
    _affine_before,
    _pad,
    _kept_dimensions,
    _flat,
)


def _is_constant(operator: Operator) -> bool:
    return operator.kind in _AFFINE and operator.kernel is not None and not operator.reverse


def _is_scalar(operator: Operator) -> bool:
    return operator.kernel is not None and operator.kernel[1] is None


def _is_channelwise(operator: Operator) -> bool:
    return operator.kernel is not None and (operator.kernel[1] is None or operator.kernel[1].ndim == 1)
