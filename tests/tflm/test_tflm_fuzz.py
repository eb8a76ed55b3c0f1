"""Mutated and truncated files: an answer or InvalidModel, within 2 seconds each and 300 MB in all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "footprint_fuzz.py"
MODELS = Path(__file__).parents[3] / "shared" / "tflm_models"
NAMES = ("tflm_hello_world_int8", "two_in_two_out", "upsample_net", "dense_3d", "dw_mult2", "tflm_mnist_lstm_int8",
         "acts_mix", "inception_concat", "tflm_keyword_scrambled_8bit")  # fmt: skip


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_files(count: int) -> None:
    if not MODELS.exists():
        pytest.skip(f"{MODELS} is not here")
    models = [str(MODELS / f"{name}.tflite") for name in NAMES]
    command = [sys.executable, str(TOOL), "--count", str(count), "--seed", str(count), *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
