"""Prune a DS-CNN on real data until it fits a budget, and compare it with the dense one.

Trains the dense network, goes on training it while tfmcu_prune prunes it, converts both to int8, runs the whole test
split on TensorFlow Lite Micro, prints a table and writes to build/quickstart/: dense.keras, pruned.keras, model.tflite,
report.json, report.md and picture.png.

Examples:

  python tools/quickstart.py
  python tools/quickstart.py --dataset fashion-mnist --arena 12KiB --flash 32KiB --macs 1M
  python tools/quickstart.py --dataset npz:my_data.npz --epochs 20 --output /tmp/mine
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from tfmcu_prune import Budget, datasets
from tfmcu_prune.console import guarded, import_keras_quietly, progress
from tfmcu_prune.files import replacing

_ROOT = Path(__file__).resolve().parent.parent

_DATASET = flags.DEFINE_string(
    "dataset", "mnist5k", "mnist5k, digits, fashion-mnist, or npz:PATH with x_train, y_train, x_test, y_test."
)
_LIMIT = flags.DEFINE_integer("limit", 4000, "At most this many samples for training and validation.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 6, "Epochs of the dense training, and as many again of the pruning.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the split, the random weights and the batches.", lower_bound=0)
_ARENA = flags.DEFINE_string("arena", "8.8KiB", "Budget of the tensor arena, for example 12KiB; none for no limit.")
_FLASH = flags.DEFINE_string("flash", "40KiB", "Budget of the .tflite file, for example 32KiB; none for no limit.")
_MACS = flags.DEFINE_string("macs", "1.5M", "Budget of multiply-accumulates, for example 600k; none for no limit.")
_AUGMENT = flags.DEFINE_boolean("augment", True, "Move the training images a little at random.")
_OUTPUT = flags.DEFINE_string("output", str(_ROOT / "build" / "quickstart"), "Folder to write to.")
_README = flags.DEFINE_string(
    "readme",
    None,
    "A Markdown file whose table of results to renew, between its two markers; tools/quickstart.png too.",
)


def main(argv: Sequence[str]) -> int:
    return guarded(_run, argv)


def _run(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"Expected flags only, for example --dataset digits. Received: {' '.join(argv[1:])}")
    budget = Budget(arena=_limit(_ARENA.value), flash=_limit(_FLASH.value), macs=_limit(_MACS.value))
    data = datasets.load(_DATASET.value, limit=_LIMIT.value, seed=_SEED.value)
    print(data)
    import_keras_quietly()
    from tfmcu_prune import demo, results, zoo

    def network(input_shape: Sequence[int], classes: int) -> Any:
        return zoo.ds_cnn(input_shape, classes, width=224, blocks=3, kernel=(8, 8), strides=4, dropout=(0, 0.1))

    shift = 0.08 if _AUGMENT.value else 0.0
    job = demo.Job(data, network, budget, _EPOCHS.value, seed=_SEED.value, shift=shift, verbose=progress())
    outcome = demo.run(job, tell=print)
    print(results.as_table(outcome.report))
    print("Written:", *demo.write(outcome, Path(_OUTPUT.value)), sep="\n  ")
    if _README.value is not None:
        path = Path(_README.value)
        text = results.inserted(path.read_text(), outcome.report)
        with replacing(path) as temporary:
            temporary.write_text(text)
        with replacing(path.parent / "tools" / "quickstart.png") as temporary:
            shutil.copyfile(Path(_OUTPUT.value) / "picture.png", temporary)


def _limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


if __name__ == "__main__":
    sys.exit(app.run(main))
