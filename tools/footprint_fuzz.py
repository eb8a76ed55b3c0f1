"""Throw mutated and truncated .tflite files at `footprint`: it must answer or raise InvalidModel, fast and in bounds.

python tools/footprint_fuzz.py --count 20000 --seed 0 MODEL.tflite ...
"""

from __future__ import annotations

import argparse
import collections
import random
import struct
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfmcu_prune.errors import InvalidModel
from tfmcu_prune.tflm.footprint import footprint

SECONDS, MEGABYTES = 2.0, 300
_WORDS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000, 0x00FFFFFF)


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Return a copy with a few bytes or words changed, or a part cut, doubled or moved."""
    result = bytearray(data)
    kind = generator.randrange(8)
    if kind == 0:
        return bytes(result[: generator.randrange(len(result))])
    if kind == 1:
        start = generator.randrange(len(result))
        del result[start : start + generator.randrange(1, 64)]
        return bytes(result)
    if kind == 2:
        start, size = generator.randrange(len(result)), generator.randrange(1, 64)
        result[start:start] = result[start : start + size]
        return bytes(result)
    for _ in range(generator.choice((1, 1, 2, 8))):
        at = generator.randrange(max(len(result) - 4, 1))
        if kind < 5:
            result[at] = generator.randrange(256)
        elif kind < 7:
            struct.pack_into("<I", result, at - at % 4, generator.choice(_WORDS))
        else:
            (word,) = struct.unpack_from("<i", result, at - at % 4)
            word = (word + generator.randrange(-16, 17) + 2**31) % 2**32 - 2**31
            struct.pack_into("<i", result, at - at % 4, word)
    return bytes(result)


def attempts(models: Sequence[bytes], count: int, seed: int) -> Iterable[bytes]:
    """Yield mutated files."""
    generator = random.Random(seed)
    for _ in range(count):
        yield mutate(generator.choice(models), generator)


def check(data: bytes) -> tuple[str, float]:
    """Return how `footprint` took a file, and the seconds it needed."""
    start = time.perf_counter()
    try:
        footprint(data)
        outcome = "answered"
    except InvalidModel:
        outcome = "refused"
    return outcome, time.perf_counter() - start


def peak_megabytes() -> float:
    """Return the most memory that this process held (getrusage would count its parent before exec)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main() -> int:
    """Run the attempts and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    for number, data in enumerate(attempts([path.read_bytes() for path in args.models], args.count, args.seed)):
        try:
            outcome, seconds = check(data)
        except Exception as error:
            print(f"attempt {number}: {type(error).__name__}: {error}")
            outcome, seconds = type(error).__name__, 0.0
            Path(f"/tmp/fuzz_{number}.tflite").write_bytes(data)
        outcomes[outcome] += 1
        slowest = max(slowest, seconds)
    memory = peak_megabytes()
    print(dict(outcomes), f"slowest {slowest:.2f} s, memory {memory:.0f} MB")
    fine = set(outcomes) <= {"answered", "refused"} and slowest < SECONDS and memory < MEGABYTES
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
