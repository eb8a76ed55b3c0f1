"""Methods of other projects. Each runs in an environment of its own, which tools/bench/peers.txt describes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import keras
import numpy as np

from bench import networks
from bench.jobs import Job
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.files import read_npz

TOOLS = Path(__file__).resolve().parent.parent


def torch_pruning(job: Job, *, scope: str = "global") -> keras.Model:
    """Torch-Pruning by the smallest of its ratios whose .tflite fits: at once halfway, or at the start in scenario B.

    A twin of the network in PyTorch has the same start, batches, optimizer and schedule; what is left of it comes back
    as a Keras model. Channels are ranked by its default, the norms of coupled channels together.

    Args:
        job: The training.
        scope: "global" ranks the channels of all layers together, "local" takes the same part of each.

    Raises:
        FileNotFoundError: There is no environment to run it in.
        BudgetError: No ratio fits the budget.
    """
    model = job.start()
    options = {"scope": scope, "step": job.step(0.5) if job.trained is None else 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _hand_over(job, model, options, folder)
        with _started(job.peers, folder) as peer:
            assert peer.stdin is not None
            assert peer.stdout is not None
            ladder = _ladder(peer.stdout, model)
            steps = list(dict.fromkeys(map(tuple, ladder)))
            index, thin = networks.first_fitting(model, steps, job.budget)
            peer.stdin.write(f"{ladder.index(list(steps[index]))}\n")
            peer.stdin.flush()
        if peer.returncode:
            raise RuntimeError(f"tools/bench/torch_peer.py failed; its message is above (status {peer.returncode}).")
        _take_back(thin, read_npz(folder / "trained.npz"))
    return thin


def _hand_over(job: Job, model: keras.Model, options: Mapping[str, object], folder: Path) -> None:
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / "start.weights.h5")
    arrays = {f.name: getattr(job.data, f.name) for f in dataclasses.fields(job.data)}
    np.savez(folder / "data.npz", allow_pickle=False, **{k: v for k, v in arrays.items() if isinstance(v, np.ndarray)})
    told = {"recipe": dataclasses.asdict(job.recipe), "epochs": job.epochs, "seed": job.seed, **options}
    (folder / "job.json").write_text(json.dumps(told))


def _started(environment: Path, folder: Path) -> subprocess.Popen[str]:
    python = environment / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(
            f"Expected an environment with Torch-Pruning at {environment}. Make it: python3 -m venv {environment} && "
            f"{environment}/bin/pip install -r tools/bench/peers.txt, or name another one with --peers."
        )
    paths = os.pathsep.join((str(TOOLS.parent), str(TOOLS)))
    return subprocess.Popen(
        [python, "-m", "bench.torch_peer", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": paths},
    )  # fmt: skip


def _ladder(lines: IO[str], model: keras.Model) -> list[list[int]]:
    """The group sizes at each of the peer's ratios, from the smallest ratio on."""
    line = lines.readline()
    if not line:
        raise RuntimeError("tools/bench/torch_peer.py stopped before it pruned; its message is above.")
    groups = channel_groups(model).groups
    return [[widths[group.name] for group in groups] for widths in json.loads(line)]


def _take_back(thin: keras.Model, trained: Mapping[str, np.ndarray]) -> None:
    for layer in thin.layers:
        if layer.weights:
            layer.set_weights([trained[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
