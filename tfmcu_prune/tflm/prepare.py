"""The context in which a kernel's Prepare runs: it reads tensors and records what it asks of the arena."""

from __future__ import annotations

from ..errors import InvalidModel
from .schema import Operator, Subgraph, Tensor
from .targets import Target


class Prepare:
    """Records the persistent buffers, scratch buffers and temporary tensors that one operator requests."""

    def __init__(self, graph: Subgraph, operator: Operator, target: Target, kernels: str) -> None:
        self.graph, self.operator, self.target = graph, operator, target
        self.cmsis = kernels == "cmsis-nn"
        self.mve = target.simd == "mve"
        self.dsp = target.simd == "dsp"
        self.persistents: list[int] = []
        self.scratches: list[int] = []
        self.opened: list[Tensor] = []

    def optional(self, number: int) -> Tensor | None:
        """Return an input tensor, `None` if it is left out."""
        inputs = self.operator.inputs
        if number >= len(inputs) or inputs[number] < 0:
            return None
        return self.graph.tensors[inputs[number]]

    def input(self, number: int) -> Tensor:
        """Return an input tensor that the operator cannot do without."""
        tensor = self.optional(number)
        if tensor is None:
            raise InvalidModel(
                f"{self.where} must have an input {number}. Received: inputs {list(self.operator.inputs)}"
            )
        return tensor

    def output(self, number: int) -> Tensor:
        """Return an output tensor."""
        outputs = self.operator.outputs
        if number >= len(outputs):
            raise InvalidModel(f"{self.where} must have an output {number}. Received: outputs {list(outputs)}")
        return self.graph.tensors[outputs[number]]

    def dims(self, tensor: Tensor, rank: int) -> tuple[int, ...]:
        """Return the shape of a tensor that must have a rank and no empty axis."""
        if len(tensor.shape) != rank or 0 in tensor.shape:
            raise InvalidModel(
                f"{self.where} needs tensor {tensor.index} to have {rank} axes and elements in each. "
                f"Received: shape {list(tensor.shape)}"
            )
        return tensor.shape

    @property
    def where(self) -> str:
        """The operator's place and name, for messages."""
        return f"operators[{self.operator.index}] ({self.operator.name})"

    def option(self, name: str) -> int:
        """Return one of the operator's options."""
        return int(self.operator.options.get(name, 0))

    def persistent(self, *sizes: int) -> None:
        """Record persistent buffers."""
        self.persistents.extend(sizes)

    def scratch(self, *sizes: int) -> None:
        """Record scratch buffers; TFLM plans one of 0 bytes as well."""
        self.scratches.extend(sizes)

    def scratch_if(self, size: int) -> None:
        """Record a scratch buffer unless it is empty."""
        if size > 0:
            self.scratch(size)

    def temps(self, names: str) -> None:
        """Record the TfLiteTensors that are open at the same time, by name; a tensor left out needs none."""
        for name in names.split():
            if name == "i*":
                self.opened.extend(self.graph.tensors[i] for i in self.operator.inputs if i >= 0)
            elif name[0] == "i":
                tensor = self.optional(int(name[1:]))
                if tensor is not None:
                    self.opened.append(tensor)
            else:
                self.opened.append(self.output(int(name[1:])))
