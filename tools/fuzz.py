"""Coverage-guided fuzzing of what reads untrusted bytes: .tflite files, and the text of budgets.

    pip install atheris
    python tools/fuzz.py --target tflite build/fuzz ../shared/tflm_models -- -max_total_time=300
    python tools/fuzz.py --target budget build/fuzz_budget -- -max_total_time=60

The folders are corpora: the first one is written to, the others are starting points. What stands behind `--` goes to
libFuzzer. A file that crashes a target is to be added to tests/seeds, which tests/tflm/test_tflm_untrusted.py reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("error: tools/fuzz.py needs atheris: pip install atheris")

with atheris.instrument_imports(include=["tfmcu_prune"]):
    from tfmcu_prune.budget import Budget
    from tfmcu_prune.errors import InvalidModel
    from tfmcu_prune.firmware.sources import model_files
    from tfmcu_prune.tflm.commands import parse_limits


def fuzz_tflite(data: bytes) -> None:
    """Read a model, estimate it, and write its sources: an answer or InvalidModel."""
    try:
        model_files(data, "model")
    except InvalidModel:
        return


def fuzz_budget(data: bytes) -> None:
    """Read a budget and a list of limits: an answer or ValueError."""
    text = data.decode("utf-8", "replace")
    for read in (parse_limits, lambda t: Budget(arena=t), lambda t: Budget(macs=t)):
        try:
            read(text)
        except ValueError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {"tflite": fuzz_tflite, "budget": fuzz_budget}


def main() -> None:
    """Hand over to libFuzzer."""
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("corpora", nargs="+", type=Path)
    args = parser.parse_args(own)
    args.corpora[0].mkdir(parents=True, exist_ok=True)
    flags = sys.argv[len(own) + 2 :]
    atheris.Setup([sys.argv[0], *map(str, args.corpora), *flags], TARGETS[args.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
