"""Fit the bytes of a .tflite beside its weights to files that the converter wrote (resources.py, _FLASH_*).

Converts the networks of tests/nets.py and more_nets.py and three of keras.applications under random masks; fits bytes a
file, an operator, an activation, a kernel or bias, an operand of one scale and a small integer.

    python tools/calibrate_flash.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import more_nets
import nets
import numpy as np
from absl import app
from applications import APPLICATIONS, randomize_scaled
from networks import inputs_for, random_mask, randomize

import tfmcu_prune
from tfmcu_prune.channels import channel_groups
from tfmcu_prune.forms import resource_model
from tfmcu_prune.resources import evaluate, flash_terms
from tfmcu_prune.tables import render


def main(_: list[str]) -> None:
    rows, names = [], []
    applications = [
        case.build for case in APPLICATIONS if case.name in ("MobileNetV2", "MobileNetV3Small", "DenseNet121")
    ]
    for net in (*nets.ALL, *more_nets.MORE, *applications):
        model = (randomize_scaled if net in applications else randomize)(net())
        channels = channel_groups(model)
        forms = resource_model(channels)
        for seed in range(2):
            mask = random_mask(channels, seed)
            gated = tfmcu_prune.prunable(model)
            tfmcu_prune.set_mask(gated, mask)
            try:
                data = tfmcu_prune.convert(tfmcu_prune.strip(gated), inputs_for(model), optimize_arena=False)
            except tfmcu_prune.UnsupportedLayer:
                break
            sizes = forms.sizes(mask)
            rows.append((*flash_terms(forms, sizes), len(data), evaluate(forms, sizes).flash))
            names.append(model.name)
    table = np.array(rows, float)
    content, *counts, real, now = table.T
    features = np.stack([np.ones(len(table)), *counts], axis=1)
    weight = 1 / np.maximum(300, 0.004 * real)
    fitted, *_ = np.linalg.lstsq(features * weight[:, None], (real - content) * weight, rcond=None)
    print(
        "bytes a file, an operator, an activation, a kernel or bias, an operand, a small integer:", np.round(fitted, 1)
    )
    error = features @ fitted + content - real
    cells = zip(names, map(int, real), map(int, now - real), map(int, error), strict=True)
    print(render(("network", "flash", "error of resources.py", "error of this fit"), cells))


if __name__ == "__main__":
    app.run(main)
