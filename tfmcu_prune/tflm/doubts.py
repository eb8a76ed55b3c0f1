"""Why a figure may be a lower bound only: what TFLM, or this package, does not know of a model."""

from __future__ import annotations

from .kernels import FLOAT_ONLY
from .schema import Model, Subgraph


def doubts(model: Model, unknown: tuple[str, ...], kernels: str) -> dict[str, str]:
    """Return the figures that are lower bounds only, with the reason; empty if all are exact."""
    reasons = [reason for graph in model.subgraphs for reason in _refused(graph, kernels)]
    if unknown:
        reasons.append(
            f"no sizes are known for {', '.join(unknown)}, which TFLM's kernels do not cover (or a custom "
            "operator does); replace it, or measure on the target"
        )
    if any(tensor.sparse for graph in model.subgraphs for tensor in graph.tensors):
        reasons.append("TFLM does not run sparse tensors; convert without sparsity")
    if "COMPRESSION_METADATA" in model.metadata:
        reasons.append("the model is compressed, and TFLM must be built with USE_TFLM_COMPRESSION for it")
    return dict.fromkeys(("arena", "macs", "code"), "; ".join(reasons)) if reasons else {}


def _refused(graph: Subgraph, kernels: str) -> list[str]:
    """Return why TFLM's kernels refuse operators for the types of their tensors."""
    floats, wide = [], []
    for operator in graph.operators:
        name = f"{operator.name} {operator.index}"
        tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
        if operator.name in FLOAT_ONLY and any(tensor.type != "float32" for tensor in tensors):
            floats.append(name)
        per_channel = len(tensors) > 1 and tensors[0].type == "int16" and tensors[1].scales > 1
        if operator.name == "FULLY_CONNECTED" and kernels == "cmsis-nn" and per_channel:
            wide.append(name)
    reasons = []
    if floats:
        reasons.append(f"TFLM runs {', '.join(floats)} in float32 only; replace it by an operator with an int8 kernel")
    if wide:
        reasons.append(
            f"CMSIS-NN's kernel refuses {', '.join(wide)}, which has int16 activations and per-channel weights; use "
            "the reference kernels or int8"
        )
    return reasons
