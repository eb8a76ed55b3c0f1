"""Training on several devices prunes as on one: the same mask on each, the same weights to rounding, the budget met."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent


def _start(path: Path, kind: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(FOLDER / "distributed.py"), str(path), kind],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _result(process: subprocess.Popen[str], path: Path) -> list[np.ndarray]:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-3000:]
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def _check_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert 0 < one[0].sum() < len(one[0])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


def _run(folder: Path, kind: str, **environment: str) -> list[np.ndarray]:
    return _result(_start(folder / f"{kind}.npz", kind, **environment), folder / f"{kind}.npz")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "mirrored-fit"])
def test_mirrored_devices(kind: str, tmp_path: Path) -> None:
    _check_same(_run(tmp_path, "one"), _run(tmp_path, kind))
