"""Compressed models that come with the package: int8 .tflite files, the card of each, and samples to try them on.

`tools/make_zoo.py` makes all that is in the folder `models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from tfmcu_prune.budget import Budget, Resources

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FOLDER = resources.files("tfmcu_prune") / "compressed" / "models"


@dataclass(frozen=True)
class Card:
    """What a model is, what it does and costs, and where it comes from.

    Args:
        name: Of the model, without ".tflite".
        task: What it tells, in a sentence.
        network: Name in `tfmcu_prune.zoo`.
        dataset: Name for `tfmcu_prune.datasets.load`.
        source: Who made the data, and which of it was used.
        licence: Of the data.
        input_shape: Of a sample, float; the model's input is its int8 image.
        classes: Names of the outputs, in order.
        samples: Training, validation and test samples; the test samples are the first of the test split.
        epochs: Of the training, the pruning in its first half.
        seed: Of weights and batches.
        budget: What the model was to fit.
        footprint: What it takes, on a Cortex-M with CMSIS-NN.
        accuracy: Of the .tflite on TensorFlow Lite Micro, over the test samples.
        accuracy_float: Of the Keras model that it was converted from, over the same.
        accuracy_sample: Of the .tflite, over the samples that come with the package.
        command: What made it.
        versions: Of what made it, by package.
    """

    name: str
    task: str
    network: str
    dataset: str
    source: str
    licence: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    samples: Mapping[str, int]
    epochs: int
    seed: int
    budget: Budget
    footprint: Resources
    accuracy: float
    accuracy_float: float
    accuracy_sample: float
    command: str
    versions: Mapping[str, str]

    def markdown(self) -> str:
        """Return the card as Markdown."""
        limits = ", ".join(f"{name} {value:,}" for name, value in self.budget.limits().items())
        cost = self.footprint
        samples = ", ".join(f"{count:,} {part}" for part, count in self.samples.items())
        made = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        rows = {
            "task": self.task,
            "input": f"{' x '.join(map(str, self.input_shape))}, float, quantized to int8 with the model's own scale",
            "outputs": ", ".join(self.classes),
            "accuracy": f"{self.accuracy:.2%}, int8 on TensorFlow Lite Micro ({self.accuracy_float:.2%} in float)",
            "footprint": f"arena {cost.arena:,} B, flash {cost.flash:,} B, {cost.macs:,} MACs",
            "budget": limits,
            "network": f"{self.network}, {self.epochs} epochs, seed {self.seed}",
            "data": f"{self.source}; {samples} samples",
            "licence of the data": self.licence,
            "made by": f"`{self.command}` with {made}",
        }
        return "\n".join([f"# {self.name}", "", "| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows.items()), ""])


def names() -> list[str]:
    """Return the names of the models."""
    return sorted(path.name.removesuffix(".tflite") for path in _FOLDER.iterdir() if path.name.endswith(".tflite"))


def model(name: str) -> bytes:
    """Return the bytes of a model's .tflite.

    Raises:
        ValueError: No such model; the message lists them.

    Example:
        >>> import tfmcu_prune
        >>> tfmcu_prune.footprint(model("digits-tiny")).require(card("digits-tiny").budget)
    """
    _require(name)
    return (_FOLDER / f"{name}.tflite").read_bytes()


def card(name: str) -> Card:
    """Return the card of a model.

    Raises:
        ValueError: No such model; the message lists them.

    Example:
        >>> card("digits-tiny").input_shape
        (8, 8, 1)
    """
    _require(name)
    return from_json(json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def sample(dataset: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the first test samples of a card's data set and their labels, as they come with the package.

    Example:
        >>> x, y = sample("digits")
        >>> x.shape, y.shape
        ((100, 8, 8, 1), (100,))
    """
    import numpy as np

    with (_FOLDER / f"{dataset}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["x"] / arrays["scale"], arrays["y"].astype(np.int64)


def notice() -> str:
    """Return the licences of the samples."""
    return (_FOLDER / "NOTICE.md").read_text(encoding="utf-8")


def from_json(value: dict[str, Any]) -> Card:
    """Return the card that `json.dumps(dataclasses.asdict(card))` wrote."""
    made = {"budget": Budget(**value["budget"]), "footprint": Resources(**value["footprint"])}
    return Card(**{**value, **made, **{name: tuple(value[name]) for name in ("input_shape", "classes")}})


def _require(name: str) -> None:
    if name not in names():
        raise ValueError(f"Expected a model of the zoo: {', '.join(names())}. Received: {name!r}")
