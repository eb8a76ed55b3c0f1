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
history = gated.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[tfmcu_prune.PruneCallback(calibration=x)])
assert history.history["channels"] == sorted(history.history["channels"], reverse=True), history.history
assert history.history["channels"][-1] < 20, history.history
small = tfmcu_prune.strip(gated)
np.testing.assert_allclose(small.predict(x, verbose=0), gated.predict(x, verbose=0), atol=1e-5)
tfmcu_prune.footprint(tfmcu_prune.convert(small, x[:20])).require(budget)
print("done")
"""

CONVERT = """
import os, signal
import keras, nets, numpy as np, pytest, tfmcu_prune
from tfmcu_prune import elsewhere
x = np.random.default_rng(0).random((20, 8, 8, 3)).astype("float32")
model = nets.residual()
file = tfmcu_prune.convert(model, x)
worker = elsewhere._worker(os.getpid())
assert tfmcu_prune.convert(model, x) == file
assert elsewhere._worker(os.getpid()) is worker
os.kill(worker._process.pid, signal.SIGKILL)
assert tfmcu_prune.convert(model, x) == file
assert elsewhere._worker(os.getpid()) is not worker
inputs = keras.Input((8, 8, 3))
refused = keras.Model(inputs, keras.layers.Activation("gelu", name="bend")(inputs))
with pytest.raises(tfmcu_prune.UnsupportedLayer, match="'bend'"):
    tfmcu_prune.convert(refused, x)
print("done")
"""

FORGET = """
import jax, keras, nets, numpy as np, tfmcu_prune
from test_callback import budget_of
from tfmcu_prune import shrinking
compiled, go_on = [], shrinking._Relay.go_on
def counted(relay):
    compiled.append(len(jax.devices()[0].client.live_executables()))
    go_on(relay)
shrinking._Relay._pays = lambda relay, epochs: epochs > 0
shrinking._Relay.go_on = counted
rng = np.random.default_rng(0)
x, y = rng.random((64, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 64)
gated = tfmcu_prune.prunable(nets.residual(), budget_of(nets.residual()))
gated.compile("adam", "sparse_categorical_crossentropy")
tfmcu_prune.fit(gated, x, y, batch_size=8, epochs=5, verbose=0)
assert len(compiled) == 4 and max(compiled) == compiled[0], compiled
print("done")
"""

FOLDER = Path(__file__).parent
TRAINING = (
    "test_callback.py", "test_gates.py", "test_learned.py", "test_limits.py", "test_preserved.py",
    "test_reconstruction.py", "test_resources.py",
)  # fmt: skip


def _under_jax(*arguments: str, timeout: int) -> str:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (pip install jax)")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(FOLDER), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_a_fit_under_jax() -> None:
    assert _under_jax("-c", TRAIN, timeout=600).endswith("done")


@pytest.mark.slow
def test_compiled_functions_do_not_outlive_a_cut_under_jax() -> None:
    assert _under_jax("-c", FORGET, timeout=600).endswith("done")


@pytest.mark.slow
def test_conversions_share_a_process_that_may_end() -> None:
    assert _under_jax("-c", CONVERT, timeout=600).endswith("done")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRAINING, "test_shrinking.py", "test_surgery.py"])
def test_the_training_suite_under_jax(name: str) -> None:
    summary = _under_jax("-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / name), timeout=3600)
    assert " passed" in summary
