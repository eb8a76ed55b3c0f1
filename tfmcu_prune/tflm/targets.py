"""What differs between the builds of TFLM: sizes of its structs (ABI) and CMSIS-NN's instruction sets. Data only.

Every size is a sizeof() of the C++ source compiled for that ABI: tensorflow/tflite-micro 90b983c2 (2026-08-20) with
TF_LITE_STATIC_MEMORY, CMSIS-NN 4ab83cc3 (the commit that TFLM pins). "arm-eabi" is arm-none-eabi-gcc 12.2 (short
enums, the AAPCS default of gcc and armclang); "no-short-enums" the same with -fno-short-enums, which is how Xtensa
and RISC-V toolchains lay structs out; "x86-64" is g++ on Linux with the recording allocator, which is what the
tflite-micro wheel of PyPI runs.
"""

from __future__ import annotations

from dataclasses import dataclass

# struct -> (bytes, alignment) on arm-eabi, no-short-enums, x86-64
_CORE: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "SingleArenaBufferAllocator": ((36, 4), (36, 4), (104, 8)),  # x86-64: Recording...
    "GreedyMemoryPlanner": ((44, 4), (44, 4), (72, 8)),
    "MicroAllocator": ((36, 4), (36, 4), (272, 8)),  # x86-64: Recording...
    "MicroBuiltinDataAllocator": ((8, 4), (8, 4), (16, 8)),
    "SubgraphAllocations": ((8, 4), (8, 4), (24, 8)),
    "TfLiteEvalTensor": ((12, 4), (12, 4), (24, 8)),
    "TfLiteTensor": ((32, 4), (40, 4), (64, 8)),
    "NodeAndRegistration": ((32, 4), (32, 4), (64, 8)),
    "TfLiteAffineQuantization": ((12, 4), (12, 4), (24, 8)),
    "ScratchBufferRequest": ((12, 4), (12, 4), (16, 8)),
    "ScratchBufferHandle": ((4, 4), (4, 4), (8, 8)),
    "AllocationInfo": ((24, 4), (24, 4), (32, 8)),
    "pointer": ((4, 4), (4, 4), (8, 8)),
    "Add": ((2, 1), (8, 4), (8, 4)),
    "ArgMinMax": ((1, 1), (4, 4), (4, 4)),
    "BatchMatMul": ((3, 1), (3, 1), (3, 1)),
    "CallOnce": ((4, 4), (4, 4), (4, 4)),
    "Cast": ((2, 1), (8, 4), (8, 4)),
    "Concatenation": ((8, 4), (8, 4), (8, 4)),
    "Conv": ((28, 4), (28, 4), (28, 4)),
    "Cumsum": ((2, 1), (2, 1), (2, 1)),
    "DepthToSpace": ((4, 4), (4, 4), (4, 4)),
    "DepthwiseConv": ((28, 4), (28, 4), (28, 4)),
    "Div": ((1, 1), (4, 4), (4, 4)),
    "FullyConnected": ((5, 1), (16, 4), (32, 8)),
    "Gather": ((8, 4), (8, 4), (8, 4)),
    "If": ((8, 4), (8, 4), (8, 4)),
    "L2Norm": ((1, 1), (4, 4), (4, 4)),
    "LeakyRelu": ((4, 4), (4, 4), (4, 4)),
    "MirrorPadding": ((1, 1), (4, 4), (4, 4)),
    "Mul": ((1, 1), (4, 4), (4, 4)),
    "Pack": ((8, 4), (8, 4), (8, 4)),
    "Pool": ((40, 4), (40, 4), (40, 4)),
    "Reducer": ((1, 1), (1, 1), (1, 1)),
    "Reshape": ((36, 4), (36, 4), (36, 4)),
    "Resize": ((2, 1), (2, 1), (2, 1)),
    "Shape": ((1, 1), (4, 4), (4, 4)),
    "Softmax": ((4, 4), (4, 4), (4, 4)),
    "Split": ((4, 4), (4, 4), (4, 4)),
    "Squeeze": ((36, 4), (36, 4), (36, 4)),
    "StridedSlice": ((24, 4), (24, 4), (24, 4)),
    "Sub": ((2, 1), (8, 4), (8, 4)),
    "SVDF": ((8, 4), (12, 4), (12, 4)),
    "TransposeConv": ((16, 4), (20, 4), (20, 4)),
    "UnidirectionalSequenceLSTM": ((16, 4), (16, 4), (16, 4)),
    "Unpack": ((8, 4), (8, 4), (8, 4)),
    "While": ((8, 4), (8, 4), (8, 4)),
}

_ABIS = ("arm-eabi", "no-short-enums", "x86-64")
KERNELS = ("reference", "cmsis-nn")


@dataclass(frozen=True)
class Target:
    """A processor as TFLM sees it.

    Args:
        name: What the caller writes.
        abi: One of "arm-eabi", "no-short-enums", "x86-64".
        simd: What CMSIS-NN is compiled for: "none" (plain C), "dsp", "mve"; "" = no CMSIS-NN for this processor.
        code: The table of code sizes that holds for it, "" = none measured.
    """

    name: str
    abi: str
    simd: str
    code: str = ""

    @property
    def wide(self) -> bool:
        """Whether pointers have 8 bytes."""
        return self.abi == "x86-64"

    def struct(self, name: str) -> tuple[int, int]:
        """Return the size and alignment of a struct of TFLM."""
        return _CORE[name][_ABIS.index(self.abi)]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("cortex-m0", "arm-eabi", "none"),
        Target("cortex-m0+", "arm-eabi", "none"),
        Target("cortex-m3", "arm-eabi", "none"),
        Target("cortex-m4", "arm-eabi", "dsp", "cortex-m4"),
        Target("cortex-m7", "arm-eabi", "dsp", "cortex-m4"),
        Target("cortex-m33", "arm-eabi", "dsp", "cortex-m4"),
        Target("cortex-m55", "arm-eabi", "mve"),
        Target("cortex-m85", "arm-eabi", "mve"),
        Target("esp32", "no-short-enums", ""),
        Target("x86-64", "x86-64", ""),
    )
}


def find_target(name: str) -> Target:
    """Return the target of a name."""
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}. Received: {name!r}")
    return TARGETS[name]


def find_kernels(name: str, target: Target) -> str:
    """Return the kernels that a target runs: CMSIS-NN exists for Cortex-M only, elsewhere they are the reference."""
    if name not in KERNELS:
        raise ValueError(f"kernels must be one of {', '.join(KERNELS)}. Received: {name!r}")
    return name if target.simd else "reference"


# Painted stacks of AllocateTensors() and Invoke() over 35 models on QEMU, the largest rounded up to 128 bytes.
_STACK = {("dsp", "reference"): 896, ("dsp", "cmsis-nn"): 1408, ("mve", "cmsis-nn"): 1536}


def stack(target: Target, kernels: str) -> int | None:
    """Return a bound for TFLM's stack in bytes, `None` where it was not measured."""
    return _STACK.get((target.simd, kernels))
