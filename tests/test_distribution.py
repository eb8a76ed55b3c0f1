"""Training on several devices prunes as on one: the same mask on each, the same weights to rounding, the budget met."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def _start(path: Path, kind: str, **environment: str) -> subprocess.Popen[bytes]:
    with path.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(FOLDER / "distributed.py"), str(path), kind],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _check_same(folder: Path, *kinds: tuple[str, dict[str, str]]) -> None:
    """Run trainings of several kinds side by side, and compare what they come to with the first one's."""
    paths = [folder / f"{index}.npz" for index in range(len(kinds))]
    processes = [_start(path, kind, **environment) for path, (kind, environment) in zip(paths, kinds, strict=True)]
    codes = [process.wait(timeout=900) for process in processes]
    for code, path in zip(codes, paths, strict=True):
        assert code == 0, path.with_suffix(".log").read_text()[-3000:]
    results = []
    for path in paths:
        with np.load(path) as arrays:
            results.append([arrays[name] for name in arrays.files])
    first, *others = results
    assert 0 < first[0].sum() < len(first[0])
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


def test_mirrored_devices(tmp_path: Path) -> None:
    _check_same(tmp_path, ("one", {}), ("mirrored", {}))


@pytest.mark.slow
def test_parallel_devices_under_jax(tmp_path: Path) -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (pip install jax)")
    backend = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    _check_same(tmp_path, ("one", backend), ("parallel", {**backend, **TWO}))
