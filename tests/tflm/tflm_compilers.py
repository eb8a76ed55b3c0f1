"""Compile generated sources: for Cortex-M4 where the compiler is installed, and against declared interfaces of TFLM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

STUBS = Path(__file__).parent / "stubs"
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
ARM = ["arm-none-eabi-g++", "-mcpu=cortex-m4", "-mthumb", "-fno-exceptions", "-fno-rtti", "-Os"]


def compile_for_arm(source: Path, object_file: Path) -> bytes:
    """Compile a source that needs no header of TFLM; return the contents of its read-only data."""
    _require("arm-none-eabi-g++", "apt install gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib")
    _run([*ARM, *STRICT, "-c", str(source), "-o", str(object_file)])
    data = object_file.with_suffix(".bin")
    _run(["arm-none-eabi-objcopy", "-O", "binary", "--only-section=.rodata*", str(object_file), str(data)])
    return data.read_bytes()


def check_against_stubs(source: Path) -> None:
    """Check a source against the interfaces of TFLM, Arduino and so on that tests/tflm/stubs declares."""
    _require("g++", "apt install g++")
    _run(["g++", *STRICT, "-fsyntax-only", "-x", "c++", "-I", str(STUBS), str(source)])


def _require(program: str, remedy: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: {remedy}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def run_on_this_machine(sources: list[Path], program: Path) -> tuple[int, str]:
    """Compile sources for this machine and run them; return the exit code and the standard output."""
    _require("g++", "apt install g++")
    _run(["g++", *STRICT, *map(str, sources), "-o", str(program)])
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout
