"""Fit the bytes of a .tflite beside its weights to files that the converter wrote (resources.py, _FLASH_*).

Converts the networks of tests/nets.py under random masks; fits bytes a file, an operator, an activation, a constant.

    python tools/calibrate_flash.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import nets
import numpy as np
from absl import app
from networks import inputs_for, random_mask, randomize

import tfmcu_prune
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.resources import evaluate, flash_terms, resource_model
from tfmcu_prune.tables import render


def main(_: list[str]) -> None:
    rows, names = [], []
    for net in nets.ALL:
        model = randomize(net())
        channels = channel_groups(model)
        forms = resource_model(channels)
        for seed in range(2):
            mask = random_mask(channels, seed)
            gated = tfmcu_prune.prunable(model)
            tfmcu_prune.set_mask(gated, mask)
            data = tfmcu_prune.convert(tfmcu_prune.strip(gated), inputs_for(model))
            sizes = forms.sizes(mask)
            rows.append((*flash_terms(forms, sizes), len(data), evaluate(forms, sizes).flash))
            names.append(net.__name__)
    table = np.array(rows, float)
    content, *counts, real, now = table.T
    features = np.stack([np.ones(len(table)), *counts], axis=1)
    fitted, *_ = np.linalg.lstsq(features, real - content, rcond=None)
    print("bytes a file, an operator, an activation, a constant:", np.round(fitted, 1))
    error = features @ fitted + content - real
    cells = zip(names, map(int, real), map(int, now - real), map(int, error), strict=True)
    print(render(("network", "flash", "error of resources.py", "error of this fit"), cells))


if __name__ == "__main__":
    app.run(main)
