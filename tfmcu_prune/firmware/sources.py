"""The files of a model: .tflite, C array, operators, arena size, and a JSON card of its inputs, outputs and costs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidModel
from ..tflm.footprint import Footprint, footprint
from ..tflm.schema import Tensor, read_model
from .names import identifier, registrations
from .templates import rendered

TFLM_VERSION = "tensorflow/tflite-micro 90b983c2, ARM-software/CMSIS-NN 4ab83cc3"
_BYTES_A_LINE = 20


def file_names(name: str) -> list[str]:
    """Return the names of the files that `model_files` makes of a model."""
    safe = identifier(name)
    return [f"{safe}.tflite", f"{safe}.h", f"{safe}.cc", "op_resolver.h", "arena.h", "model.json"]


def model_files(
    data: bytes,
    name: str,
    *,
    target: str = "cortex-m4",
    kernels: str = "cmsis-nn",
    labels: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """Return the files of a model by their names: `.tflite`, `.cc`, `.h`, op_resolver.h, arena.h and model.json.

    Args:
        data: The .tflite.
        name: What the model is called; made safe by `identifier`.
        target: The processor that the arena is for, as in `footprint`.
        kernels: The kernels, as in `footprint`.
        labels: What the values of the last output stand for.
        versions: Of the packages that made the file, by name.

    Raises:
        InvalidModel: Not a model that TensorFlow Lite Micro could run.
        ValueError: Labels that do not fit the output.
    """
    name, fp = identifier(name), footprint(data, target=target, kernels=kernels)
    texts = {
        **array_sources(data, name, ".cc"),
        "op_resolver.h": resolver_header(data, name),
        "arena.h": arena_header(fp, name),
        "model.json": card(data, name, fp, labels=labels, versions=versions or {}),
    }
    return {f"{name}.tflite": data, **{file: text.encode() for file, text in texts.items()}}


def array_sources(data: bytes, name: str, suffix: str) -> dict[str, str]:
    """Return the .h and the source of a C array of the model; `suffix` is what the build calls C++."""
    digest = hashlib.sha256(data).hexdigest()
    rows = [data[i : i + _BYTES_A_LINE] for i in range(0, len(data), _BYTES_A_LINE)]
    body = "\n".join(f"    0x{row.hex(' ').replace(' ', ', 0x')}," for row in rows)
    facts = {"name": name, "size": len(data), "digest": digest}
    return {
        f"{name}.h": rendered("array.h", **facts),
        f"{name}{suffix}": rendered("array.cc", body=body, **facts),
    }


def resolver_header(data: bytes, name: str) -> str:
    """Return the header that registers exactly the operators of a model."""
    return rendered("op_resolver.h", name=name, registrations=registrations(read_model(data)))


def arena_header(fp: Footprint, name: str) -> str:
    """Return the header with the exact size of the arena."""
    return rendered("arena.h", name=name, fp=fp, exact="arena" not in fp.uncertain, tflm=TFLM_VERSION)


def card(data: bytes, name: str, fp: Footprint, *, labels: Sequence[str], versions: Mapping[str, str]) -> str:
    """Return what an application must know of a model, as JSON."""
    graph = read_model(data).main
    outputs = [graph.tensors[i] for i in graph.outputs]
    if labels and len(labels) != outputs[-1].shape[-1]:
        raise ValueError(
            f"Expected as many labels as the model's last output has values, {outputs[-1].shape[-1]}. "
            f"Received: {len(labels)}"
        )
    value = {
        "name": name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "inputs": [_described(graph.tensors[i]) for i in graph.inputs],
        "outputs": [_described(tensor) for tensor in outputs],
        "labels": list(labels),
        "operators": sorted({operator.name for operator in graph.operators}),
        "footprint": fp.to_dict(),
        "versions": {"tflm": TFLM_VERSION, **versions},
    }
    return json.dumps(value, indent=2) + "\n"


def _described(tensor: Tensor) -> dict[str, Any]:
    """A tensor; `real = scale * (value - zero_point)`, both `None` where it is not quantized."""
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "type": tensor.type,
        "scale": finite_scale(tensor) if tensor.quantized else None,
        "zero_point": tensor.zero_point if tensor.quantized else None,
    }


def finite_scale(tensor: Tensor) -> float:
    """Return the scale of a tensor, which neither C++ nor JSON could write if it were no finite number.

    Raises:
        InvalidModel: It is not.
    """
    if not math.isfinite(tensor.scale):
        raise InvalidModel(f"Expected scales that are finite numbers. Received: {tensor.scale}")
    return tensor.scale
