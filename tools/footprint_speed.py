"""Time the prediction: in process on a model, and `estimate` from a cold start; beside mcufit if it is installed.

python tools/footprint_speed.py MODEL.tflite --out speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tfmcu_prune.tflm.footprint import footprint

_COLD = (
    "import argparse, sys; from tfmcu_prune.tflm import commands; p = argparse.ArgumentParser();"
    "commands.add_estimate(p.add_subparsers()); a = p.parse_args(); sys.exit(a.run(a))"
)
IN_PROCESS_S, COLD_S = 0.020, 0.5


def seconds(call: Callable[[], object], times: int) -> dict[str, float]:
    """Return the least and the median time of a call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return {"least": min(taken), "median": statistics.median(taken)}


def command_seconds(command: list[str], times: int = 9) -> dict[str, float]:
    """Return the times of a process."""
    return seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), times)


def main() -> int:
    """Measure, print, and fail above the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = args.model.read_bytes()
    result = {
        "model": args.model.name,
        "operators": len(footprint(data).operators),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "in_process_s": seconds(lambda: footprint(data), 30),
        "cold_start_s": command_seconds([sys.executable, "-c", _COLD, "estimate", str(args.model)]),
    }
    script = shutil.which("tfmcu-prune")
    if script:
        result["command_s"] = command_seconds([script, "estimate", str(args.model)])
    other = shutil.which("mcufit")
    if other:
        result["mcufit_s"] = command_seconds([other, str(args.model)])
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    fast = result["in_process_s"]["least"] < IN_PROCESS_S and result["cold_start_s"]["least"] < COLD_S
    return 0 if fast else 1


if __name__ == "__main__":
    sys.exit(main())
