"""A training that is interrupted and taken up again ends where it would have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import nets
import numpy as np
import pytest
import tensorflow as tf
from networks import inputs_for
from test_callback import budget_of

import tfmcu_prune
from tfmcu_prune import PruneCallback
from tfmcu_prune.callback import converted_cost
from tfmcu_prune.gates import gates_of

FOLDER = Path(__file__).parent


def _killed(folder: Path, kind: str, kills: int, epochs: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Mask and weights of a whole training, and of one that has been killed so many times."""
    arguments = [str(FOLDER / "resuming.py"), str(folder), kind, str(kills), str(epochs), str(seed)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = []
    for name in ("whole", "killed"):
        with np.load(folder / f"{name}.npz") as arrays:
            results.append([arrays[key] for key in arrays.files])
    return results[0], results[1]


@pytest.mark.parametrize(("kind", "kills"), [("backup", 2), ("fit", 1)])
def test_a_killed_training_ends_the_same(kind: str, kills: int, tmp_path: Path) -> None:
    _check_killed(tmp_path, kind, kills, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("backup", 50), ("saved", 50), ("fit", 20)])
def test_fifty_kills(kind: str, kills: int, tmp_path: Path) -> None:
    _check_killed(tmp_path, kind, kills, 3 * kills)


def _check_killed(folder: Path, kind: str, kills: int, epochs: int) -> None:
    whole, killed = _killed(folder, kind, kills, epochs)
    assert 0 < whole[0].sum() < len(whole[0])
    for a, b in zip(whole, killed, strict=True):
        if kind == "fit":  # a cut sums in another order
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_array_equal(b, a)


def _form(gated: keras.Model) -> tfmcu_prune.Resources:
    """What the mask costs in closed form, for tests that need no file."""
    from tfmcu_prune.gating import channels_of, get_mask
    from tfmcu_prune.resources import evaluate, resource_model

    model = resource_model(channels_of(gated))
    return evaluate(model, model.sizes(get_mask(gated)))


def _gated() -> keras.Model:
    keras.utils.set_random_seed(0)
    gated = tfmcu_prune.prunable(nets.residual(), budget_of(nets.residual()))
    gated.compile(keras.optimizers.Adam(0.02), "mse")
    return gated
