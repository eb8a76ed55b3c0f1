"""Time and memory of each step as networks, files and numbers of budgets grow, each in new processes.

    python tools/scale.py --widths 62,125,250,500 --runs 3

Three jobs: a chain of --layers convolutions of growing width (100,000 channels at 200 x 500), the projection that
PruneCallback runs every few steps on MobileNetV2, and --budgets budgets and a .tflite of --mib MiB for the TFLite half.
Writes scale.json and table.md: medians of seconds by the clock and of the processor (busy machines disturb them less),
the growth of the peak memory in MiB, and for the chain the exponent p of processor seconds ~ channels^p between the
narrowest and the widest; 1 is linear.
"""

from __future__ import annotations

import json
import math
import os
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

LAYERS = flags.DEFINE_integer("layers", 200, "Convolutions of the chain.")
WIDTHS = flags.DEFINE_list("widths", ["62", "125", "250", "500"], "Channels of each, from narrow to wide.")
BUDGETS = flags.DEFINE_integer("budgets", 1000, "Budgets of the sweeps.")
MIB = flags.DEFINE_integer("mib", 50, "Size of the large .tflite.")
RUNS = flags.DEFINE_integer("runs", 3, "Processes to measure for each job.")
OUTPUT = flags.DEFINE_string("output", "build/scale", "Folder of scale.json and table.md.")
JOB = flags.DEFINE_string("job", None, "Run one job once and print JSON; used by this script itself.")

Steps = dict[str, dict[str, float]]


class Clock:
    """Collects seconds and growth of the peak memory of named steps."""

    def __init__(self) -> None:
        self.steps: Steps = {}

    def __call__(self, name: str, what: Callable[[], Any], repeat: int = 1) -> Any:
        seconds, cpu, before = [], [], _peak()
        for _ in range(repeat):
            start, cpu_start = time.perf_counter(), time.process_time()
            value = what()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
        self.steps[name] = {
            "seconds": statistics.median(seconds), "cpu": statistics.median(cpu), "mib": _peak() - before
        }  # fmt: skip
        return value


def _peak() -> float:
    """The most MiB this process held; getrusage would count its parent before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def chain(width: int) -> Steps:
    """Every step of the Keras half on a chain of pointwise convolutions."""
    import keras
    import numpy as np

    import tfmcu_prune
    from tfmcu_prune.allocation import allocate, choose
    from tfmcu_prune.forms import resource_model
    from tfmcu_prune.salience import outgoing_norm

    def build() -> keras.Model:
        x = inputs = keras.Input((8, 8, 3))
        for _ in range(LAYERS.value):
            x = keras.layers.Conv2D(width, 1, use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))

    clock = Clock()
    model = clock("build (Keras alone)", build)
    channels = clock("channel_groups", lambda: tfmcu_prune.channel_groups(model))
    forms = clock("resource_model", lambda: resource_model(channels))
    budget = _between(forms, 0.3)
    sizes = clock("allocate", lambda: allocate(forms, budget), 3)
    worth = clock("outgoing_norm", lambda: outgoing_norm(channels, np.ones(channels.count)))
    mask = clock("choose", lambda: choose(forms, worth, sizes), 3)
    gated = clock("prunable", lambda: tfmcu_prune.prunable(model, budget))
    clock("set_mask", lambda: tfmcu_prune.set_mask(gated, mask))
    clock("strip", lambda: tfmcu_prune.strip(gated))
    return clock.steps


def _between(forms: Any, share: float) -> Any:
    """A budget between the least that a model can cost and what it costs."""
    import tfmcu_prune
    from tfmcu_prune.resources import RESOURCES, evaluate

    least, full = evaluate(forms, forms.least()), evaluate(forms, forms.full())
    costs = {name: (getattr(least, name), getattr(full, name)) for name in RESOURCES}
    return tfmcu_prune.Budget(**{name: int(low + share * (high - low)) for name, (low, high) in costs.items()})


def projection() -> Steps:
    """What PruneCallback computes at one update of the mask of MobileNetV2, at several depths of the ramp."""
    import keras
    import numpy as np

    from tfmcu_prune.allocation import allocate, choose
    from tfmcu_prune.channels import channel_groups
    from tfmcu_prune.forms import resource_model
    from tfmcu_prune.regularizer import prices
    from tfmcu_prune.salience import outgoing_norm

    clock, channels = Clock(), channel_groups(keras.applications.MobileNetV2(weights=None))
    forms = resource_model(channels)
    for share in (0.8, 0.5, 0.2, 0.1):
        budget = _between(forms, share)
        sizes = clock(f"allocate to {share:.0%}", lambda budget=budget: allocate(forms, budget), 9)
    worth = clock("outgoing_norm", lambda: outgoing_norm(channels, np.ones(channels.count)), 9)
    mask = clock("choose", lambda: choose(forms, worth, sizes), 9)
    clock("prices", lambda: prices(forms, np.ones_like(mask), mask, budget, 0.1), 9)
    return clock.steps


def files() -> Steps:
    """Budgets swept over one model, and a file far larger than any microcontroller."""
    import keras
    import numpy as np

    import tfmcu_prune
    from tfmcu_prune.allocation import allocate
    from tfmcu_prune.boards import BOARDS
    from tfmcu_prune.channels import channel_groups
    from tfmcu_prune.firmware.sources import model_files
    from tfmcu_prune.forms import resource_model
    from tfmcu_prune.tflm.commands import board_row
    from tfmcu_prune.zoo import ds_cnn

    clock, rng = Clock(), np.random.default_rng(0)
    small = ds_cnn((49, 10, 1), 12)
    forms = resource_model(channel_groups(small))
    budgets = [_between(forms, share) for share in np.linspace(0.02, 0.98, BUDGETS.value)]
    clock(f"allocate, {BUDGETS.value} budgets", lambda: [allocate(forms, budget) for budget in budgets])
    data = tfmcu_prune.convert(small, calibration=rng.random((2, 49, 10, 1), np.float32))
    clock(f"footprint, {BUDGETS.value} budgets", lambda: [_fits(data, budget) for budget in budgets])
    width = math.isqrt(MIB.value * 2**20)
    large = keras.Sequential([keras.Input((width,)), keras.layers.Dense(width)])
    data = tfmcu_prune.convert(large, calibration=rng.random((2, width), np.float32))
    name = f"{len(data) / 2**20:.0f} MiB"
    clock(f"footprint, {name}", lambda: tfmcu_prune.footprint(data), 3)
    clock(f"boards, {name}", lambda: [board_row(board, data) for board in BOARDS])
    clock(f"model_files, {name}", lambda: model_files(data, "large"))
    return clock.steps


def _fits(data: bytes, budget: Any) -> bool:
    import tfmcu_prune

    try:
        tfmcu_prune.footprint(data).require(budget)
    except tfmcu_prune.BudgetError:
        return False
    return True


def medians(script: str, job: str) -> Steps:
    """Run a job several times in new processes."""
    command = [sys.executable, script, f"--job={job}"]
    command += [f"--{flag.name}={flag.value}" for flag in (LAYERS, BUDGETS, MIB)]
    runs: list[Steps] = []
    for _ in range(RUNS.value):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"The job {job} failed: {done.stderr}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    figures = ("seconds", "cpu", "mib")
    return {name: {f: statistics.median(run[name][f] for run in runs) for f in figures} for name in runs[0]}


def _rows(result: dict[str, Steps]) -> list[tuple[str, ...]]:
    rows = [(job, name, f"{one['seconds']:.3f}", f"{one['cpu']:.3f}", f"{one['mib']:.0f}", "")
            for job, steps in result.items() for name, one in steps.items()]  # fmt: skip
    chains = [job for job in result if job.startswith("chain")]
    first, last = result[chains[0]], result[chains[-1]]
    growth = math.log(int(chains[-1].split(":")[1]) / int(chains[0].split(":")[1])) if len(chains) > 1 else 0
    for i, (job, name, *others) in enumerate(rows):
        if growth and job == chains[-1]:
            power = math.log(last[name]["cpu"] / first[name]["cpu"]) / growth
            rows[i] = (job, name, *others[:3], f"{power:.2f}")
    return rows


def main(argv: list[str]) -> None:
    if JOB.value:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        kind, _, width = JOB.value.partition(":")
        print(json.dumps(chain(int(width)) if width else {"projection": projection, "files": files}[kind]()))
        return
    jobs = [*(f"chain:{width}" for width in WIDTHS.value), "projection", "files"]
    result: dict[str, Any] = {job: medians(argv[0], job) for job in jobs}
    table = render(("job", "step", "seconds", "processor", "MiB", "exponent"), _rows(result))
    text = f"{LAYERS.value} layers in the chain, {RUNS.value} runs, load {os.getloadavg()[0]:.1f}\n{table}"
    print(text)
    with replacing(Path(OUTPUT.value) / "scale.json") as path:
        path.write_text(json.dumps({"layers": LAYERS.value, "runs": RUNS.value, "jobs": result}, indent=1))
    with replacing(Path(OUTPUT.value) / "table.md") as path:
        path.write_text(f"```\n{text}\n```\n")


if __name__ == "__main__":
    app.run(main)
