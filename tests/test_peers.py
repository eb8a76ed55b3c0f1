"""tools/bench/peers.py: what a peer in another environment leaves comes back as a Keras model within the budget."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_benchmark import TOOLS, job, network
from test_benchmark import budget as budget
from test_benchmark import data as data

from tfmcu_prune import Budget
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.datasets import Dataset
from tfmcu_prune.fitting import converted_cost
from tfmcu_prune.resources import over

sys.path.insert(0, str(TOOLS))

from bench import networks, peers
from bench.measure import measure
from bench.methods import dense

STAND_IN = """#!{python}
import json, shutil, sys
folder = sys.argv[3]
told = json.load(open(folder + "/job.json"))
assert told["step"] == {step} and told["scope"] == "global", told
print("noise of a library", file=sys.stderr)
print(json.dumps({ladder}), flush=True)
shutil.copy(f"{here}/{{int(sys.stdin.readline())}}.npz", folder + "/trained.npz")
"""


def stand_in(folder: Path, ladder: list[dict[str, int]], step: int) -> Path:
    """An environment whose Python answers as bench.torch_peer would."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(python=sys.executable, ladder=ladder, step=step, here=folder))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


def test_the_first_ratio_that_fits_is_taken_and_its_weights_come_back(
    data: Dataset, budget: Budget, tmp_path: Path
) -> None:
    model = network()
    first, second = (group.name for group in channel_groups(model).groups)
    sizes = [(8, 12), (7, 9), (7, 9), (5, 6), (2, 2)]
    ladder = [{first: a, second: b, "classifier": 3} for a, b in sizes]
    asked = replace(job(data, budget), network=lambda: model, peers=stand_in(tmp_path, ladder, step=6))
    weights = {}
    for index, each in enumerate(sizes):
        thin = networks.resized(model, each)
        weights.setdefault(each, [[w.numpy() for w in layer.weights] for layer in thin.layers])
        named = {f"{layer.name}/{i}": w.numpy() for layer in thin.layers for i, w in enumerate(layer.weights)}
        np.savez(tmp_path / f"{index}.npz", **named)
    found = peers.torch_pruning(asked)
    kept = (found.layers[1].filters, found.layers[4].filters)
    fits = [not over(converted_cost(networks.resized(model, each)), budget) for each in sizes]
    assert sizes[fits.index(True)] == kept != sizes[0]
    for layer, expected in zip(found.layers, weights[kept], strict=True):
        for a, b in zip(layer.weights, expected, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    measure(found, data, budget)  # requires the budget


def test_without_its_environment_the_peer_says_how_to_make_it(data: Dataset, budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pip install -r tools/bench/peers.txt"):
        peers.torch_pruning(job(data, budget, peers=tmp_path / "none"))


def test_a_peer_that_fails_is_an_error(data: Dataset, budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped before it pruned"):
        peers.torch_pruning(job(data, budget, peers=stand_in(tmp_path, [], step=-1)))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["A", "B"])
def test_torch_pruning_meets_the_budget(data: Dataset, budget: Budget, scenario: str) -> None:
    environment = TOOLS.parent / "build" / "peers"
    if not (environment / "bin" / "python").exists():
        pytest.skip(f"no environment at {environment}: see tools/bench/peers.txt")
    asked = job(data, budget, peers=environment)
    if scenario == "B":
        asked = job(data, budget, peers=environment, trained=dense(asked), before=3, epochs=2)
    found = measure(peers.torch_pruning(asked), data, budget)
    assert sum(found["widths"]) < 23
    assert found["test"] > 0.5  # of three classes that differ by a channel
