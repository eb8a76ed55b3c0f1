"""Names that are safe in C++ and as file names, whatever a file or a person says."""

from __future__ import annotations

import re
import unicodedata

from ..errors import InvalidModel
from ..tflm.kernels import KERNELS
from ..tflm.schema import Model

_LONGEST = 48
_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const consteval
constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double dynamic_cast else
enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
nullptr operator or or_eq private protected public register reinterpret_cast requires return short signed sizeof
static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename union
unsigned using virtual void volatile wchar_t while xor xor_eq
"""
# Names of files, of functions that a loader calls, of targets of CMake, and macros of compilers.
_TAKEN = """
all app arduino arena clean help inference install linux loop main op_resolver package recorded self_test setup std test
tflite tflm tflm_interface unix
"""
_RESERVED = {*_KEYWORDS.split(), *_TAKEN.split()}

# Where TFLM's name of a registration is not the operator's in camel case. Source: tensorflow/tflite-micro 90b983c2,
# tensorflow/lite/micro/micro_mutable_op_resolver.h
_REGISTRATIONS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}


def identifier(text: str) -> str:
    """Return a name in lower case that C++ takes and that no path can hide in.

    Args:
        text: What a person or a file calls the model.

    Example:
        >>> identifier("My model (v2)"), identifier("../../etc/passwd"), identifier("int"), identifier("")
        ('my_model_v2', 'etc_passwd', 'int_model', 'model')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST].strip("_")
    if not name:
        return "model"
    if name[0].isdigit():
        name = f"m_{name}"
    return f"{name}_model" if name in _RESERVED else name


def registrations(model: Model) -> list[str]:
    """Return the methods of MicroMutableOpResolver that register the operators of a model, each once, sorted.

    Raises:
        InvalidModel: An operator that TensorFlow Lite Micro does not register by name.
    """
    used = sorted({operator.name for graph in model.subgraphs for operator in graph.operators})
    unknown = [name for name in used if name not in KERNELS]
    if unknown:
        raise InvalidModel(
            f"Expected operators that TensorFlow Lite Micro has. Received: {', '.join(map(ascii, unknown))}. Replace "
            "the layers that become them; a custom operator needs a resolver of its own."
        )
    return [registration(name) for name in used]


def registration(operator: str) -> str:
    """Return the method that registers an operator.

    Example:
        >>> registration("DEPTHWISE_CONV_2D")
        'AddDepthwiseConv2D'
    """
    camel = "".join(part if part[0].isdigit() else part.capitalize() for part in operator.split("_"))
    return _REGISTRATIONS.get(operator, f"Add{camel}")
