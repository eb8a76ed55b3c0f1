"""What each operator's kernel allocates when TFLM starts: one table, and a function where sizes depend on shapes.

Source: tensorflow/tflite-micro 90b983c2, tensorflow/lite/micro/kernels/*.cc and kernels/cmsis_nn/*.cc (Init and
Prepare), core/api/flatbuffer_conversions.cc (the struct each parser allocates). Sizes are sizeof() on 32-bit ARM and
x86-64; no struct of a kernel differs between arm-eabi and no-short-enums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import cmsis
from .prepare import Prepare

_LUT16 = 2 * 513  # int16_t LUT of 513 entries: kernels/internal/common.h, LUTSize


@dataclass(frozen=True)
class Kernel:
    """What one kernel allocates.

    Args:
        params: The struct that its parser allocates, a name of `targets`; "" = none.
        data: sizeof() of its operator data on 32 and on 64 bits; 0 = none.
        cmsis: sizeof() of its operator data in CMSIS-NN, 0 = the same kernel.
        temps: TfLiteTensors that Prepare opens: "i0" is input 0, "o0" output 0, "i*" every input.
        prepare: What else Prepare requests.
    """

    params: str = ""
    data: tuple[int, int] = (0, 0)
    cmsis: int = 0
    temps: str = ""
    prepare: Callable[[Prepare], None] | None = None


def _per_channel(at: Prepare, channels: int) -> None:
    """Multipliers and shifts, one int32 per channel each."""
    at.persistent(4 * channels, 4 * channels)


def _conv(at: Prepare) -> None:
    weights, quantized = at.input(1), at.input(0).type in ("int8", "int16")
    channels = at.dims(weights, 4)[0]
    if at.cmsis:
        at.temps("i0 i1 o0 i0 i1 i2 o0")
        if quantized:
            _per_channel(at, channels)
            at.scratch_if(cmsis.conv(at))
        return
    at.temps("o0 i0 i1 i0 i1 i2 o0")
    _per_channel(at, channels)
    if weights.type == "int4":
        at.scratch(weights.size)


def _depthwise(at: Prepare) -> None:
    source, weights = at.input(0), at.input(1)
    channels = at.dims(weights, 4)[3]
    at.temps("i0 i1 o0 i0 i1 i2 o0")
    if not at.cmsis or source.type in ("int8", "int16"):
        _per_channel(at, channels)
    if at.cmsis and source.type == "int8":
        at.scratch_if(cmsis.depthwise(at))
    elif not at.cmsis and weights.type == "int4":
        at.scratch(weights.size)


def _fully_connected(at: Prepare) -> None:
    source, weights, result = at.input(0), at.input(1), at.output(0)
    at.temps("i0 i1 i2 o0")
    per_channel = source.type != "float32" and weights.quantized and weights.scales > 1
    if per_channel:
        _per_channel(at, at.dims(weights, 2)[0])
    if not at.cmsis:
        if weights.type == "int4":
            at.scratch(weights.size)
    elif source.type == "int8" and weights.type != "int4":
        channels = result.shape[-1] if result.shape else 1
        if len(result.shape) > 2 and at.dims(weights, 2)[1] % 4 == 0:
            if not per_channel:
                at.scratch(8 * channels)
        elif at.mve:
            bias = at.optional(2)
            constant = weights.constant and (bias is None or bias.constant)
            (at.persistent if constant else at.scratch)(4 * channels)


def _transpose_conv(at: Prepare) -> None:
    source, weights, result = at.input(2), at.input(1), at.output(0)
    at.temps("o0 i2 i1" if source.type == "float32" else "o0 i2 i1 i2 i1 i3 o0")
    _per_channel(at, at.dims(weights, 4)[0])
    if source.type == "int8" and at.cmsis:
        at.scratch(*cmsis.transpose_conv(at))
    elif source.type in ("int8", "int16"):
        at.scratch((4 if source.type == "int8" else 8) * result.size)
    bias = at.optional(3)
    if source.type == "int16" and bias is not None and bias.type == "int16":
        at.scratch(8 * bias.size)


def _average_pool(at: Prepare) -> None:
    at.temps("i0 o0")
    if at.cmsis:
        at.temps("i0 o0")
        if at.dsp and at.input(0).type in ("int8", "int16"):
            at.scratch(4 * at.dims(at.input(0), 4)[3])


def _softmax(at: Prepare) -> None:
    at.temps("i0 o0")
    if at.input(0).type == "int16":
        at.persistent(_LUT16, _LUT16)


def _mean(at: Prepare) -> None:
    at.temps("i0 o0 i1")
    source, axes = at.input(0), at.input(1)
    if source.type in ("int8", "int16"):
        at.scratch(4 * at.output(0).size)
    at.scratch(4 * len(source.shape), 4 * axes.size)
    at.temps("i0 i1 o0" if source.type == "int8" else "i0 i1")


def _reduce(at: Prepare) -> None:
    source, axes = at.input(0), at.input(1)
    at.temps("i0 i1 o0" if source.type == "int8" else "i0 i1")
    at.temps("i0 o0 i1")
    at.scratch(4 * len(source.shape), 4 * axes.size)


def _svdf(at: Prepare) -> None:
    at.temps("i0 i1 i2 i3 i4 o0")
    source, features = at.dims(at.input(0), 2), at.dims(at.input(1), 2)
    batch, filters = source[0], features[0]
    at.scratch(4 * batch * filters)
    if at.input(0).type == "int8":
        at.scratch(4 * batch * (filters // max(at.option("rank"), 1)))
        if at.cmsis and at.mve:
            at.persistent(4 * filters)


def _lstm(at: Prepare) -> None:
    at.temps("i* o0")
    source, hidden, cell = at.input(0), at.input(18), at.input(19)
    batch = at.dims(source, 3)[1 if at.option("time_major") else 0]
    units = at.dims(hidden, 2)[1]
    integer = at.cmsis and cell.type == "int16" and source.type in ("int8", "int16")
    if integer:
        width = 4 if source.type == "int8" else 8
        at.persistent(*[width * units] * 8)
    at.scratch(*[batch * units * (cell.nbytes // max(cell.size, 1))] * (3 if integer else 4))


def _batch_matmul(at: Prepare) -> None:
    at.temps("i0 i1 o0")
    left, right, result = at.input(0), at.input(1), at.output(0)
    eval_tensor, _ = at.target.struct("TfLiteEvalTensor")
    for tensor, transposed in ((left, at.option("adj_x")), (right, not at.option("adj_y"))):
        if transposed:
            at.persistent(eval_tensor, 4 + 4 * len(tensor.shape), tensor.nbytes)
    at.persistent(4 + 4 * len(result.shape))
    if left.type in ("int8", "int16"):
        at.persistent(28)
    if at.cmsis and at.mve and left.type == "int8":
        at.scratch(4 * (result.shape[-1] if result.shape else 1))


def _dims(temps: str) -> Callable[[Prepare], None]:
    def prepare(at: Prepare) -> None:
        at.temps(temps)
        at.persistent(4 + 4 * len(at.output(0).shape))

    return prepare


def _embedding(at: Prepare) -> None:
    _dims("i0 i1 o0")(at)
    at.persistent(16 if at.target.wide else 8)


def _int8_data(temps: str, narrow: int, wide: int) -> Callable[[Prepare], None]:
    def prepare(at: Prepare) -> None:
        at.temps(temps)
        if at.output(0).type == "int8":
            at.persistent(wide if at.target.wide else narrow)

    return prepare


def _add_n(at: Prepare) -> None:
    _int8_data("i0 o0", 40, 40)(at)
    at.temps(" ".join(f"i{i}" for i in range(1, len(at.operator.inputs))))
    at.scratch((8 if at.target.wide else 4) * len(at.operator.inputs))


def _mirror_pad(at: Prepare) -> None:
    at.temps("i0 i1 o0")
    rank = 4 * len(at.input(0).shape)
    at.scratch(rank, rank)


_UNARY = "i0 o0"
_BINARY = "i0 i1 o0"
_COMPARE = Kernel("", (32, 32), 0, "i0 i1")

KERNELS: dict[str, Kernel] = {
    "ABS": Kernel("", (28, 28), 0, _UNARY),
    "ADD": Kernel("Add", (60, 60), 60, _BINARY),
    "ADD_N": Kernel(prepare=_add_n),
    "ARG_MAX": Kernel("ArgMinMax"),
    "ARG_MIN": Kernel("ArgMinMax"),
    "AVERAGE_POOL_2D": Kernel("Pool", (32, 32), 36, prepare=_average_pool),
    "BATCH_MATMUL": Kernel("BatchMatMul", (16, 32), 36, prepare=_batch_matmul),
    "BATCH_TO_SPACE_ND": Kernel(temps=_UNARY),
    "BROADCAST_ARGS": Kernel(temps=_BINARY),
    "BROADCAST_TO": Kernel(temps=_BINARY),
    "CALL_ONCE": Kernel("CallOnce", (8, 8)),
    "CAST": Kernel("Cast", temps=_UNARY),
    "CEIL": Kernel(temps=_UNARY),
    "CONCATENATION": Kernel("Concatenation", (24, 80), 0, "i0 o0 i*"),
    "CONV_2D": Kernel("Conv", (56, 80), 60, prepare=_conv),
    "COS": Kernel(temps=_UNARY),
    "CUMSUM": Kernel("Cumsum", prepare=_int8_data(_BINARY, 36, 36)),
    "DEPTHWISE_CONV_2D": Kernel("DepthwiseConv", (56, 80), 60, prepare=_depthwise),
    "DEPTH_TO_SPACE": Kernel("DepthToSpace", prepare=_dims(_UNARY)),
    "DEQUANTIZE": Kernel("", (32, 32), 0, _UNARY),
    "DIV": Kernel("Div", (28, 28), 0, _BINARY),
    "DYNAMIC_UPDATE_SLICE": Kernel(temps="i0 i1 i2 o0"),
    "ELU": Kernel("", (256, 256), 0, _UNARY),
    "EMBEDDING_LOOKUP": Kernel(prepare=_embedding),
    "EQUAL": _COMPARE,
    "EXP": Kernel(temps=_UNARY),
    "EXPAND_DIMS": Kernel(temps=_BINARY),
    "FILL": Kernel(temps=_BINARY),
    "FLOOR": Kernel(),
    "FLOOR_DIV": Kernel(temps=_BINARY),
    "FLOOR_MOD": Kernel(temps=_BINARY),
    "FULLY_CONNECTED": Kernel("FullyConnected", (48, 72), 72, prepare=_fully_connected),
    "GATHER": Kernel("Gather", prepare=_dims(_BINARY)),
    "GATHER_ND": Kernel(prepare=_dims(_BINARY)),
    "GREATER": _COMPARE,
    "GREATER_EQUAL": _COMPARE,
    "HARD_SWISH": Kernel("", (20, 20), 0, _UNARY),
    "IF": Kernel("If", (8, 8), 0, "i0"),
    "L2_NORMALIZATION": Kernel("L2Norm", (4, 4), 0, _UNARY),
    "L2_POOL_2D": Kernel("Pool", prepare=_dims("o0 i0")),
    "LEAKY_RELU": Kernel("LeakyRelu", (24, 24), 0, _UNARY),
    "LESS": _COMPARE,
    "LESS_EQUAL": _COMPARE,
    "LOG": Kernel(temps=_UNARY),
    "LOGICAL_AND": Kernel(),
    "LOGICAL_NOT": Kernel(temps=_UNARY),
    "LOGICAL_OR": Kernel(),
    "LOGISTIC": Kernel("", (16, 16), 0, _UNARY),
    "LOG_SOFTMAX": Kernel(prepare=_int8_data(_UNARY, 28, 40)),
    "MAXIMUM": Kernel(),
    "MAX_POOL_2D": Kernel("Pool", (32, 32), 36, _UNARY),
    "MEAN": Kernel("Reducer", (44, 44), prepare=_mean),
    "MINIMUM": Kernel(),
    "MIRROR_PAD": Kernel("MirrorPadding", (20, 20), prepare=_mirror_pad),
    "MUL": Kernel("Mul", (36, 36), 0, _BINARY),
    "NEG": Kernel(),
    "NOT_EQUAL": _COMPARE,
    "PACK": Kernel("Pack"),
    "PAD": Kernel("", (56, 56), 0, _BINARY),
    "PADV2": Kernel("", (56, 56), 0, "i0 i1 i2 o0"),
    "PRELU": Kernel("", (28, 28), 0, _BINARY),
    "QUANTIZE": Kernel("", (32, 32), 0, _UNARY),
    "REDUCE_ALL": Kernel("Reducer", (44, 44), prepare=_reduce),
    "REDUCE_MAX": Kernel("Reducer", (44, 44), prepare=_reduce),
    "REDUCE_MIN": Kernel("Reducer", (44, 44), prepare=_reduce),
    "RELU": Kernel("", (28, 28), 0, _UNARY),
    "RELU6": Kernel("", (8, 8), 0, "i0"),
    "RESHAPE": Kernel("Reshape", temps=_UNARY),
    "RESIZE_BILINEAR": Kernel("Resize", temps=_BINARY),
    "RESIZE_NEAREST_NEIGHBOR": Kernel("Resize", temps=_BINARY),
    "REVERSE_V2": Kernel(temps=_BINARY),
    "ROUND": Kernel(temps=_UNARY),
    "RSQRT": Kernel("", (28, 28), 0, _UNARY),
    "SELECT_V2": Kernel("", (1, 1), 0, "i0 i1 i2 o0"),
    "SHAPE": Kernel("Shape"),
    "SIN": Kernel(temps=_UNARY),
    "SLICE": Kernel(temps="i0 i1 i2 o0"),
    "SOFTMAX": Kernel("Softmax", (56, 80), 64, prepare=_softmax),
    "SPACE_TO_BATCH_ND": Kernel("", (4, 4), 0, _UNARY),
    "SPACE_TO_DEPTH": Kernel("DepthToSpace", prepare=_dims(_UNARY)),
    "SPLIT": Kernel("Split", temps="i0"),
    "SPLIT_V": Kernel("Split", temps="i2"),
    "SQRT": Kernel(temps=_UNARY),
    "SQUARE": Kernel(temps=_UNARY),
    "SQUARED_DIFFERENCE": Kernel("", (112, 112), 0, _BINARY),
    "SQUEEZE": Kernel("Squeeze", temps=_UNARY),
    "STRIDED_SLICE": Kernel("StridedSlice", (84, 84), 0, "i0 i1 i2 i3 o0"),
    "SUB": Kernel("Sub", (52, 52), 0, _BINARY),
    "SUM": Kernel("Reducer", (44, 44), prepare=_mean),
    "SVDF": Kernel("SVDF", (36, 36), 40, prepare=_svdf),
    "TANH": Kernel("", (16, 16), 0, "i0 i0 o0"),
    "TRANSPOSE": Kernel(temps=_BINARY),
    "TRANSPOSE_CONV": Kernel("TransposeConv", (72, 88), 76, prepare=_transpose_conv),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Kernel("UnidirectionalSequenceLSTM", (688, 688), 912, prepare=_lstm),
    "UNPACK": Kernel("Unpack"),
    "WHILE": Kernel("While", (8, 8)),
    "ZEROS_LIKE": Kernel(temps=_UNARY),
}

# Operators whose Prepare or Eval fails unless the tensors are float32.
FLOAT_ONLY = frozenset({"CEIL", "COS", "EXP", "FLOOR", "L2_POOL_2D", "LOG", "NEG", "ROUND", "SIN", "SQRT", "SQUARE"})
