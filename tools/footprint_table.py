"""Measure what the prediction, reordering and planning are worth, over all models; write JSON and Markdown.

For each model: the arena predicted for Cortex-M4 with CMSIS-NN, the record, the running wheel, and the arena after
`reorder`, `plan` and `optimize`, whose outputs on TFLM are compared bit for bit.

    python tools/footprint_table.py --shared ../shared --out docs/footprint  [MORE.tflite ...]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tfmcu_prune.tflm import measure, optimize, plan, reorder, run
from tfmcu_prune.tflm.footprint import footprint
from tfmcu_prune.tflm.schema import read_model

_COLUMNS = (
    ("model", "model"), ("arena", "arena"), ("record", "record"), ("head", "head"), ("bound", "bound"),
    ("reorder", "reorder"), ("plan", "plan"), ("optimize", "optimize"), ("flash", "flash +"), ("saved", "saved"),
    ("x86", "wheel = prediction"), ("same", "outputs equal"),
)  # fmt: skip


def same_outputs(model: bytes, changed: bytes) -> bool:
    """Whether both compute the same on TFLM, bit for bit."""
    if changed == model:
        return True
    graph = read_model(model).main
    generator = np.random.default_rng(0)
    xs = [generator.normal(size=(4, *graph.tensors[i].shape[1:])) for i in graph.inputs]
    results = [run(each, xs) for each in (model, changed)]
    first, second = (result if isinstance(result, list) else [result] for result in results)
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def equals_wheel(model: bytes) -> bool:
    """Whether the running wheel uses what was predicted for it."""
    fp = footprint(model, target="x86-64")
    return measure(model) == (fp.head, fp.tail, fp.arena_used)


def row(path: Path, record: dict[str, Any] | None) -> dict[str, Any]:
    """Return the figures of one model."""
    model = path.read_bytes()
    before = footprint(model)
    changed = {"reorder": reorder(model), "plan": plan(model), "optimize": optimize(model)}
    after = {name: footprint(data) for name, data in changed.items()}
    files = [model, *changed.values()]
    return {
        "model": path.stem,
        "arena": before.arena,
        "record": record["m4_cmsis"]["min16"] if record else None,
        "head": before.head,
        "bound": before.lower_bound,
        **{name: fp.arena for name, fp in after.items()},
        "flash": after["optimize"].flash - before.flash,
        "saved": round(1 - after["optimize"].arena / before.arena, 4),
        "x86": all(equals_wheel(data) for data in dict.fromkeys(files)),
        "same": all(same_outputs(model, data) for data in changed.values()),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    lines = ["| " + " | ".join(title for _, title in _COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    for each in rows:
        cells = [f"{100 * each[key]:.1f} %" if key == "saved" else each[key] for key, _ in _COLUMNS]
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the table; fail if a prediction or an output differs, or a change made a model worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("footprint_table"), help="without suffix")
    args = parser.parse_args()
    records = json.loads((args.shared / "tflm_ground_truth.json").read_text())["models"]
    paths = [*sorted((args.shared / "tflm_models").glob("*.tflite")), *args.models]
    rows = [row(path, records.get(path.stem)) for path in paths]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(rows))
    print(markdown(rows))
    worse = [each for each in rows if max(each["reorder"], each["plan"]) > each["arena"]]
    return 0 if not worse and all(each["x86"] and each["same"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
