"""The training half on other backends of Keras, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = """
import keras, nets, numpy as np, tfmcu_prune
from test_callback import budget_of
assert keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
x, y = rng.random((64, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 64)
budget = budget_of(nets.residual())
gated = tfmcu_prune.prunable(nets.residual(), budget)
assert np.array_equal(gated.predict(x, verbose=0), gated.predict(x, verbose=0))
gated.compile("adam", "sparse_categorical_crossentropy")
history = gated.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[tfmcu_prune.PruneCallback()])
assert history.history["channels"] == sorted(history.history["channels"], reverse=True), history.history
assert history.history["channels"][-1] < 20, history.history
small = tfmcu_prune.strip(gated)
np.testing.assert_allclose(small.predict(x, verbose=0), gated.predict(x, verbose=0), atol=1e-5)
tfmcu_prune.footprint(tfmcu_prune.convert(small, x[:20])).require(budget)
print("done")
"""


@pytest.mark.slow
def test_a_fit_under_jax() -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (pip install jax)")
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": folder, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("done")
