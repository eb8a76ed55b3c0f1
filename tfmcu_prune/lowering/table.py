"""The one table: layer or operation, by the name of its class -> the TFLite operators that it becomes.

Layers and `keras.ops` operations that do the same bear the same name, or stand in one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmcu_prune.graph import Call
from tfmcu_prune.lowering import elementwise as each
from tfmcu_prune.lowering import movement, recurrence, sequence, weighted
from tfmcu_prune.lowering.order import Step
from tfmcu_prune.program import Builder
from tfmcu_prune.rules import Flow, is_augmentation, weight_of

Lowering = Callable[..., int | tuple[int, ...]]


def lowering_for(step: Step) -> Lowering:
    """Return the function that emits a step's operators; an estimate where they are not known."""
    return _PARTS[step.part] if step.part in _PARTS else _of_layer(step.call.layer)


def _of_layer(layer: Any) -> Lowering:
    if is_augmentation(layer):
        return each.nothing
    ours = type(layer).__module__.split(".")[0] == "keras"
    return TABLE.get(type(layer).__name__, unknown) if ours else unknown


def holds_maps(step: Step) -> bool:
    """Whether a step takes 1-D maps as 2-D ones, (1, time, channels), as the converter leaves them where it can."""
    return bool(step.part) or type(step.call.layer).__name__ in _HOLDING


def unknown(program: Builder, call: Call, flow: Flow, inputs: Sequence[int]) -> tuple[int, ...]:
    """A layer whose operators are not known: one for each kernel that it reads with, or one; an estimate."""
    program.estimated[call.name] = None
    kind, index = type(call.layer).__name__, inputs[0]
    mixed = [_mixed(call, flow, name, axis) for name, axis in flow.reads.items()] or [{}]
    for more in mixed[:-1]:
        index = program.emit(kind, call, [index], flow.outputs[0], **more)
    results = [program.emit(kind, call, [*dict.fromkeys([*inputs, index])], flow.outputs[0], **mixed[-1])]
    return (*results, *(program.emit(kind, call, inputs, labels) for labels in flow.outputs[1:]))


def _mixed(call: Call, flow: Flow, name: str, axis: int) -> dict[str, Any]:
    """The kernel and the MACs of a weight with which a layer reads its input channels."""
    axes, shape = flow.weights[name], weight_of(call.layer, name).shape
    other = [i for i, labels in enumerate(axes) if i != axis and labels is not None]
    columns = axes[other[0]] if other else None
    elements = int(np.prod([size for i, size in enumerate(shape) if i != axis and i not in other[:1]]))
    return {"weight": name, "kernel": (axes[axis], columns, elements), "macs": (axes[axis], elements)}


def _rows(lowering: Lowering, *names: str) -> dict[str, Lowering]:
    """One function for several names; "Conv#" stands for Conv1D and Conv2D."""
    return {name.replace("#", f"{rank}D"): lowering for name in names for rank in (1, 2)}


TABLE: dict[str, Lowering] = {
    **_rows(weighted.conv, "Conv#"),
    **_rows(weighted.depthwise, "DepthwiseConv#"),
    **_rows(weighted.separable, "SeparableConv#"),
    **_rows(weighted.conv_transpose, "Conv#Transpose"),
    **_rows(weighted.dense, "Dense"),
    **_rows(weighted.embedding, "Embedding"),
    **_rows(weighted.pool("MAX_POOL_2D"), "MaxPooling#", "MaxPool"),
    **_rows(weighted.pool("AVERAGE_POOL_2D"), "AveragePooling#", "AveragePool"),
    **_rows(movement.reduction("MEAN"), "GlobalAveragePooling#", "Mean"),
    **_rows(movement.reduction("REDUCE_MAX"), "GlobalMaxPooling#", "Max", "Amax"),
    **_rows(movement.reduction("REDUCE_MIN"), "Min", "Amin"),
    **_rows(movement.reduction("SUM"), "Sum"),
    **_rows(movement.variance, "Var", "Std"),
    **_rows(each.activation, "Activation"),
    **_rows(each.relu, "ReLU", "Relu"),
    **_rows(each.named("relu6"), "Relu6"),
    **_rows(each.named("leaky_relu"), "LeakyReLU", "LeakyRelu"),
    **_rows(each.named("elu"), "ELU", "Elu"),
    **_rows(each.named("silu"), "Silu"),
    **_rows(each.named("gelu"), "Gelu"),
    **_rows(each.named("sigmoid"), "Sigmoid"),
    **_rows(each.named("tanh"), "Tanh"),
    **_rows(each.named("hard_silu"), "HardSilu"),
    **_rows(each.named("hard_sigmoid"), "HardSigmoid"),
    **_rows(each.softmax, "Softmax"),
    **_rows(each.clip, "Clip"),
    **_rows(each.prelu, "PReLU"),
    **_rows(each.unary("ABS"), "Absolute", "Abs"),
    **_rows(each.unary("EXP"), "Exp"),
    **_rows(each.negative, "Negative"),
    **_rows(each.square, "Square"),
    **_rows(each.unary("LOG"), "Log"),
    **_rows(each.unary("SQRT"), "Sqrt"),
    **_rows(each.unary("RSQRT"), "Rsqrt"),
    **_rows(each.binary("ADD"), "Add"),
    **_rows(each.binary("SUB"), "Subtract"),
    **_rows(each.binary("MUL"), "Multiply"),
    **_rows(each.binary("DIV"), "Divide", "TrueDivide"),
    **_rows(each.binary("MAXIMUM"), "Maximum"),
    **_rows(each.binary("MINIMUM"), "Minimum"),
    **_rows(each.binary("SQUARED_DIFFERENCE"), "SquaredDifference"),
    **_rows(each.binary("ADD"), "Average"),
    **_rows(each.batch_norm, "BatchNormalization"),
    **_rows(each.rescaling, "Rescaling"),
    **_rows(each.normalization, "Normalization"),
    **_rows(each.layer_scale, "LayerScale"),
    **_rows(sequence.layer_norm, "LayerNormalization", "RMSNormalization"),
    **_rows(sequence.group_norm, "GroupNormalization"),
    **_rows(
        each.nothing,
        *("Dropout", "AlphaDropout", "SpatialDropout#", "GaussianNoise", "GaussianDropout", "StochasticDepth"),
        *("ActivityRegularization", "Identity", "StopGradient", "Copy", "Cast", "Masking"),
    ),
    **_rows(movement.pad, "ZeroPadding#", "Pad"),
    **_rows(movement.crop, "Cropping#", "CenterCrop"),
    **_rows(movement.resize(""), "Resizing", "Resize", "UpSampling#"),
    **_rows(movement.repeat_vector, "RepeatVector"),
    **_rows(movement.reshape, "Flatten", "Reshape", "ExpandDims", "Squeeze"),
    **_rows(movement.transpose, "Permute", "Transpose", "SwapAxes", "Swapaxes"),
    **_rows(movement.reverse, "Flip"),
    **_rows(movement.concatenate, "Concatenate"),
    **_rows(movement.stack, "Stack"),
    **_rows(movement.split, "Split"),
    **_rows(movement.get_item, "GetItem"),
    **_rows(sequence.matmul, "Matmul", "Dot"),
    **_rows(sequence.attention, "MultiHeadAttention"),
    **_rows(sequence.einsum_dense, "EinsumDense"),
    **_rows(recurrence.recurrent, "SimpleRNN", "GRU", "LSTM"),
    **_rows(recurrence.bidirectional, "Bidirectional"),
}
TABLE["TimeDistributed"] = sequence.time_distributed(_of_layer)
_HOLDING = set(
    _rows(
        each.nothing,
        *(
            "Conv#",
            "DepthwiseConv#",
            "SeparableConv#",
            "Conv#Transpose",
            "MaxPooling#",
            "AveragePooling#",
            "UpSampling#",
        ),
        *("MaxPool", "AveragePool", "Activation", "ReLU", "Relu", "Relu6", "Sigmoid", "Tanh", "BatchNormalization"),
        *("Rescaling", "Dropout", "SpatialDropout#", "GaussianNoise", "GaussianDropout", "Identity", "Subtract"),
        *("Add", "Multiply", "Maximum", "Minimum", "Average", "Divide", "TrueDivide"),
    )
)
_PARTS: dict[str, Lowering] = {"vector": each.vector, "mean": each.scaled_down}
