"""What the tests of the TFLite half share: the measured models and their figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"
TRUTH = SHARED / "tflm_ground_truth.json"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `measured` once for each measured model."""
    if "measured" in metafunc.fixturenames:
        models = json.loads(TRUTH.read_text())["models"] if TRUTH.exists() else {}
        skip = pytest.param(None, marks=pytest.mark.skip(reason=f"{TRUTH} is not here"))
        metafunc.parametrize("measured", list(models.values()) or [skip], ids=list(models) or ["none"])


@pytest.fixture
def model(measured: dict) -> bytes:
    """The bytes of the measured model."""
    return (SHARED / measured["file"]).read_bytes()


@pytest.fixture
def shared_model():
    """Return a function that reads one of the measured models by its name."""

    def read(name: str) -> bytes:
        path = SHARED / "tflm_models" / f"{name}.tflite"
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path.read_bytes()

    return read
