"""How long the analysis, the gates and strip take on a large network, and how much memory, each in a new process.

    python tools/graph_time.py --network ResNet50 --size 224 --runs 3

Writes graph_time.json and a table; seconds are medians over the runs, MiB the growth of the peak memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from tfmcu_prune.files import replacing
from tfmcu_prune.tables import render

NETWORK = flags.DEFINE_string("network", "ResNet50", "Name in keras.applications.")
SIZE = flags.DEFINE_integer("size", 224, "Height and width of the input.")
RUNS = flags.DEFINE_integer("runs", 3, "Processes to measure.")
OUTPUT = flags.DEFINE_string("output", "build/graph_time", "Folder of graph_time.json and table.md.")
STEP = flags.DEFINE_bool("step", False, "Measure once and print JSON; used by this script itself.")


def measure_once() -> dict[str, Any]:
    import keras
    import numpy as np

    import tfmcu_prune

    model = getattr(keras.applications, NETWORK.value)(weights=None, input_shape=(SIZE.value, SIZE.value, 3))
    result: dict[str, Any] = {"weights_mib": model.count_params() * 4 / 2**20}

    def timed(name: str, what: Callable[[], Any]) -> Any:
        before, start = _peak(), time.perf_counter()
        value = what()
        result[name] = {"seconds": time.perf_counter() - start, "mib": _peak() - before}
        return value

    channels = timed("channel_groups", lambda: tfmcu_prune.channel_groups(model))
    budget = tfmcu_prune.Budget(flash=model.count_params() // 4)
    gated = timed("prunable", lambda: tfmcu_prune.prunable(model, budget))
    tfmcu_prune.set_mask(gated, np.arange(channels.count) % 2 == 0)
    timed("strip", lambda: tfmcu_prune.strip(gated))
    return result


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str]) -> None:
    if STEP.value:
        print(json.dumps(measure_once()))
        return
    command = [sys.executable, argv[0], f"--network={NETWORK.value}", f"--size={SIZE.value}", "--step"]
    runs = []
    for _ in range(RUNS.value):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name in ("channel_groups", "prunable", "strip"):
        seconds = statistics.median(run[name]["seconds"] for run in runs)
        rows.append((name, f"{seconds:.2f}", f"{statistics.median(run[name]['mib'] for run in runs):.0f}"))
    table = render(("step", "seconds", "MiB"), rows)
    text = f"{NETWORK.value} at {SIZE.value}, weights {runs[0]['weights_mib']:.0f} MiB, {len(runs)} runs\n{table}"
    print(text)
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "graph_time.json") as path:
        path.write_text(json.dumps({"network": NETWORK.value, "size": SIZE.value, "runs": runs}, indent=1))
    with replacing(folder / "table.md") as path:
        path.write_text(f"```\n{text}\n```\n")


if __name__ == "__main__":
    app.run(main)
