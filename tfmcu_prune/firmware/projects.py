"""Applications to start from: a model, and a main that compares what a device computes with what a PC computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidModel
from ..tflm.footprint import footprint
from ..tflm.runtime import Record, record
from ..tflm.schema import Tensor, read_model
from .names import identifier
from .sources import TFLM_VERSION, arena_header, array_sources, card, finite_scale, resolver_header
from .templates import rendered

_TYPES = {"int8": "std::int8_t", "uint8": "std::uint8_t", "int16": "std::int16_t", "int32": "std::int32_t"}
_VALUES_A_LINE = 20
_MOST_VALUES = 2**22  # of an input or output, since they are recorded as text; more than any microcontroller holds
_SOURCES = ("inference", "recorded", "self_test")


@dataclass(frozen=True)
class Ecosystem:
    """How an ecosystem wants its application.

    Args:
        processor: The target of `footprint` that its arena is for, unless the user names one.
        folder: Where the sources go, with "/" behind; "" for the top.
        suffix: Of C++ sources.
        margin: Bytes beside the exact arena, since the ecosystem's TFLM is another version, or has other kernels.
        files: The other files by name, and their templates.
    """

    processor: str
    folder: str
    suffix: str
    margin: int
    files: dict[str, str]


ECOSYSTEMS = {
    "arduino": Ecosystem("cortex-m4", "", ".cpp", 1024, {"{sketch}.ino": "sketch.ino"}),
    "esp-idf": Ecosystem(
        "esp32", "main/", ".cc", 1024,
        {"CMakeLists.txt": "esp_project.cmake", "main/CMakeLists.txt": "esp_component.cmake",
         "main/main.cc": "esp_main.cc", "main/idf_component.yml": "idf_component.yml",
         "sdkconfig.defaults": "sdkconfig.defaults"},
    ),
    "zephyr": Ecosystem(
        "cortex-m4", "src/", ".cc", 0,
        {"CMakeLists.txt": "zephyr.cmake", "prj.conf": "prj.conf", "src/main.cc": "main.cc"},
    ),
    "cmake": Ecosystem("cortex-m4", "src/", ".cc", 0, {"CMakeLists.txt": "project.cmake", "src/main.cc": "main.cc"}),
}  # fmt: skip


def project_files(
    data: bytes,
    name: str,
    ecosystem: str,
    *,
    samples: Sequence[np.ndarray] | None = None,
    processor: str | None = None,
    kernels: str = "cmsis-nn",
    sketch: str | None = None,
) -> dict[str, bytes]:
    """Return the files of an application by their names.

    Args:
        data: The .tflite, with integer inputs and outputs.
        name: What the model is called; made safe by `identifier`.
        ecosystem: One of `ECOSYSTEMS`.
        samples: An array a model input, the first sample of which is recorded. Default: random values, the same ones
            each time.
        processor: The target of `footprint` that the arena is for. Default: that of the ecosystem.
        kernels: The kernels, as in `footprint`.
        sketch: Name of the Arduino sketch, which must be that of its folder. Default: `name`.

    Raises:
        InvalidModel: Not a model that TensorFlow Lite Micro could run, or inputs or outputs that are not integers.
        ValueError: Samples that do not fit the model.
        ImportError: tflite-micro, which runs the recorded input, is not installed.
    """
    style, name = ECOSYSTEMS[ecosystem], identifier(name)
    fp = footprint(data, target=processor or style.processor, kernels=kernels)
    graph = read_model(data).main
    inputs, outputs = ([graph.tensors[i] for i in indices] for indices in (graph.inputs, graph.outputs))
    facts = {
        "name": name,
        "sketch": sketch or name,
        "ecosystem": ecosystem,
        "suffix": style.suffix,
        "margin": style.margin,
        "fp": fp,
        "tflm": TFLM_VERSION,
        "inputs": [_facts(tensor) for tensor in inputs],
        "outputs": [_facts(tensor) for tensor in outputs],
    }
    recorded = _recorded(data, inputs, samples)
    texts = {
        **array_sources(data, name, style.suffix),
        "op_resolver.h": resolver_header(data, name),
        "arena.h": arena_header(fp, name),
        **{f"{source}.h": rendered(f"{source}.h", **facts) for source in _SOURCES},
        **{f"{source}{style.suffix}": rendered(f"{source}.cc", **facts, **recorded) for source in _SOURCES},
    }
    others = {
        **{file.format(sketch=facts["sketch"]): rendered(kind, **facts) for file, kind in style.files.items()},
        "README.md": rendered("README.md", **facts),
        "model.json": card(data, name, fp, labels=(), versions={}),
    }
    return {
        **{style.folder + file: text.encode() for file, text in texts.items()},
        **{file: text.encode() for file, text in others.items()},
    }


def _facts(tensor: Tensor) -> dict[str, Any]:
    """What the templates are told of an input or output; nothing that is text in the file."""
    if tensor.type not in _TYPES:
        raise InvalidModel(
            f"Expected inputs and outputs of {', '.join(_TYPES)}. Received: {tensor.type}. Convert the model to int8, "
            "for example with `tfmcu-prune convert`."
        )
    if tensor.size > _MOST_VALUES:
        raise InvalidModel(f"Expected inputs and outputs of at most {_MOST_VALUES:,} values. Received: {tensor.size:,}")
    scale = repr(float(np.float32(finite_scale(tensor))))
    return {"type": _TYPES[tensor.type], "length": tensor.size, "scale": scale, "zero": int(tensor.zero_point)}


def _recorded(data: bytes, inputs: Sequence[Tensor], samples: Sequence[np.ndarray] | None) -> dict[str, list[str]]:
    """The recorded inputs and outputs as bodies of C arrays."""
    chosen = [_random(tensor) for tensor in inputs] if samples is None else [array[:1] for array in samples]
    found: Record = record(data, chosen)
    return {"recorded_inputs": [_body(a) for a in found.inputs], "recorded_outputs": [_body(a) for a in found.outputs]}


def _random(tensor: Tensor) -> np.ndarray:
    """One sample over all the range of an input; zeros where it is not quantized, such as the indices of words."""
    shape = (1, *tensor.shape)
    if not tensor.quantized:
        return np.zeros(shape, tensor.type)
    limits = np.iinfo(tensor.type)
    values = np.random.default_rng(0).integers(limits.min, limits.max, shape, endpoint=True)
    return (values - tensor.zero_point) * np.float64(tensor.scale)


def _body(array: np.ndarray) -> str:
    values = [str(int(value)) for value in array.reshape(-1)]
    rows = [values[i : i + _VALUES_A_LINE] for i in range(0, len(values), _VALUES_A_LINE)]
    return "\n".join(f"    {', '.join(row)}," for row in rows)
