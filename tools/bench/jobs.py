"""One training of the benchmark: what every method is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from bench.tasks import Recipe
from bench.training import Teacher, fit
from tfmcu_prune import Budget
from tfmcu_prune.datasets import Dataset


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        network: `() -> model` with new random weights, softmax at the end.
        data: The data set.
        recipe: How it is trained.
        budget: What the result may cost.
        epochs: Of this training.
        seed: Of weights, batches and choices.
        trained: The dense network, trained, in scenario B; `None` in scenario A.
        before: Epochs that `trained` has behind it.
        jit: As `jit_compile` of Keras.
        peers: The environment that methods of other projects run in.
        backup: Folder in which a stopped training finds what it had; `None` to begin anew.
    """

    network: Callable[[], keras.Model]
    data: Dataset
    recipe: Recipe
    budget: Budget
    epochs: int
    seed: int
    trained: keras.Model | None = None
    before: int = 0
    jit: bool | str = "auto"
    peers: Path = Path("build/peers")
    backup: Path | None = None

    def start(self) -> keras.Model:
        """Return the network that the training starts from."""
        return self.network() if self.trained is None else self.trained

    def train(
        self,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        epochs: int | None = None,
        teacher: Teacher | None = None,
        cut: bool = False,
    ) -> keras.Model:
        """Train a model on the job's data; return it."""
        count = self.epochs if epochs is None else epochs
        fit(
            model, self.data, self.recipe, epochs=count, seed=self.seed, callbacks=callbacks, jit=self.jit,
            teacher=teacher, cut=cut, backup=self.backup,
        )  # fmt: skip
        return model

    def step(self, part: float) -> int:
        """Return the step at a part of the training."""
        return round(part * self.epochs * (len(self.data.x_train) // self.recipe.batch_size))
