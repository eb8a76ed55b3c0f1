"""Training, the same for every method: batches with augmentation on the fly, optimizer, schedule, fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfmcu_prune
from bench.normalization import one_kernel
from bench.tasks import Recipe
from tfmcu_prune.datasets import Dataset

JIT: dict[str, bool | str] = {"auto": "auto", "true": True, "false": False}
"""`jit_compile` of Keras by the word of a flag."""

Teacher = Callable[[Any, Any], Any]
"""`(samples, labels) -> labels`, both of shape (samples, classes)."""


class Batches(keras.utils.PyDataset):
    """Augmented batches with smoothed one-hot labels, in an order that depends on the seed and the epoch.

    Args:
        data: The data set; its training part is used.
        recipe: Batch size, augmentation, smoothing.
        seed: Of the order and the augmentation.
        teacher: What makes other labels of them.
    """

    def __init__(self, data: Dataset, recipe: Recipe, seed: int, *, teacher: Teacher | None = None) -> None:
        super().__init__()
        self._data, self._recipe, self._teacher, self._seed = data, recipe, teacher, seed
        smooth = recipe.smoothing / data.classes
        self._targets = (np.eye(data.classes) * (1 - recipe.smoothing) + smooth).astype(np.float32)
        self.begin(0)

    def __len__(self) -> int:
        return len(self._data.x_train) // self._recipe.batch_size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        size = self._recipe.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        x = self._data.x_train[chosen]
        if self._recipe.flip:
            x = np.where(self._mirrored[chosen][:, None, None, None], x[:, :, ::-1], x)
        x = moved(x, self._recipe.shift, self._rng)
        y = self._targets[self._data.y_train[chosen]]
        x, y = mixed(x, y, self._recipe.mixup, self._rng)
        return x, y if self._teacher is None else self._teacher(x, y)

    def begin(self, epoch: int) -> None:
        """Begin an epoch: another order, other shifts, the other mirror images."""
        count = len(self._data.x_train)
        self._mirrored = (np.random.default_rng(self._seed).random(count) < 0.5) ^ bool(epoch % 2)
        self._rng = np.random.default_rng((self._seed, epoch))
        self._order = self._rng.permutation(count)


def moved(x: Any, shift: tuple[int, int], rng: np.random.Generator) -> Any:
    """Move each sample of shape (height, width, channels) by up to `shift`, zeros coming in."""
    if not any(shift):
        return x
    count, height, width, _ = x.shape
    (rows, columns), batch = shift, np.arange(count)[:, None, None]
    padded = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    down = rng.integers(0, 2 * rows + 1, count)[:, None] + np.arange(height)
    right = rng.integers(0, 2 * columns + 1, count)[:, None] + np.arange(width)
    return padded[batch, down[:, :, None], right[:, None, :]]


def mixed(x: Any, y: Any, part: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Mix each sample and its labels with another of the batch, by up to `part` of it (mixup, arXiv 1710.09412)."""
    if not part:
        return x, y
    other, weight = rng.permutation(len(x)), rng.uniform(0, part, len(x)).astype(x.dtype)
    far = weight.reshape(-1, *[1] * (x.ndim - 1))
    return x + far * (x[other] - x), y + weight[:, None] * (y[other] - y)


def schedule(recipe: Recipe, steps: int, *, warmup: float = 0.15) -> Callable[[int], Any]:
    """Return the recipe's one-cycle learning rate over `steps` steps."""
    rise = max(1, int(warmup * steps))
    return keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 10, max(steps - rise, 1), warmup_target=recipe.learning_rate, warmup_steps=rise
    )


def optimizer(recipe: Recipe, steps: int) -> keras.Optimizer:
    """Return the recipe's optimizer with its schedule over `steps` steps."""
    rate = schedule(recipe, steps)
    if recipe.optimizer == "sgd":
        made: Any = keras.optimizers.SGD(rate, 0.9, nesterov=True, weight_decay=recipe.weight_decay)
    elif recipe.optimizer == "adamw":
        made = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    elif recipe.optimizer == "muon":
        made = ConvolutionMuon(rate, adam_weight_decay=recipe.weight_decay, exclude_layers=["."])
    else:
        raise ValueError(f'Expected the optimizer "adamw", "muon" or "sgd". Received: {recipe.optimizer!r}')
    made.exclude_from_weight_decay(var_names=["offset", "log_sizes", "bias", "gamma", "beta"])
    return made


@keras.saving.register_keras_serializable("tfmcu_prune_benchmark")
class ConvolutionMuon(keras.optimizers.Muon):
    """Muon for kernels of convolutions, each as a matrix with a row a weight of a filter, and AdamW for all else.

    Keras 3.15 has Muon for matrices alone. Depthwise kernels, and those that read the input, are left to AdamW.
    Make it with `exclude_layers=["."]`, so that Keras has a slot of AdamW for everything.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if len(variable.shape) != 4 or min(variable.shape[-2:]) <= 3:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self.momentums[self._get_variable_index(variable)]  # as in Keras' own; there is no public way
        self.assign(momentum, self.momentum * momentum + gradient)
        ahead = keras.ops.reshape(gradient + self.momentum * momentum, (-1, variable.shape[-1]))
        step = self.lr_adjust(learning_rate * self.zeropower_via_newtonschulz5(ahead, self.ns_steps))
        self.assign_sub(variable, keras.ops.reshape(step, variable.shape))


def fit(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit: bool | str = "auto",
    teacher: Teacher | None = None,
    cut: bool = False,
    backup: Path | None = None,
) -> None:
    """Train a model that ends in softmax; `callbacks` see an ordinary fit. With `cut` it is tfmcu_prune.fit.

    With `backup`, a folder, a training that was stopped goes on at its last full epoch; the folder is gone at its end.
    """
    batches = Batches(data, recipe, seed, teacher=teacher)
    made = optimizer(recipe, epochs * len(batches))
    model.compile(made, "categorical_crossentropy", metrics=["accuracy"], jit_compile=jit)
    kept = [] if backup is None else [keras.callbacks.BackupAndRestore(backup, double_checkpoint=True), Clock(backup)]
    run = tfmcu_prune.fit if cut else keras.Model.fit
    with one_kernel():
        feed(run, model, batches, epochs=epochs, callbacks=[*callbacks, *kept])


def feed(
    run: Callable[..., Any],
    model: keras.Model,
    batches: Batches,
    *,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Run `keras.Model.fit` or `tfmcu_prune.fit` on batches that know the epoch."""
    turn = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.begin(epoch))
    run(model, without_autotune(batches), epochs=epochs, shuffle=False, verbose=0, callbacks=[turn, *callbacks])


class Clock(keras.callbacks.Callback):
    """Writes the seconds that a training has taken into its backup, over all its lives."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._start = folder, time.perf_counter() - spent(folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        (self._folder / "seconds").write_text(str(time.perf_counter() - self._start))


def spent(folder: Path | None) -> float:
    """Return the seconds that went into a backup, up to its last epoch; 0 where there is none."""
    path = folder and folder / "seconds"
    return float(path.read_text()) if path and path.exists() else 0.0


def without_autotune(batches: keras.utils.PyDataset) -> Any:
    """The batches for `fit`: on TensorFlow as a tf.data.Dataset that does not tune itself, elsewhere as they are.

    With tuning an epoch ends only when the tuning thread wakes up, and its periods double: an epoch may take up to
    twice the time of its steps (seen with TensorFlow 2.21). Keras has no argument for it.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def epoch() -> Iterator[tuple[Any, Any]]:
        for index in range(len(batches)):
            yield batches[index]

    spec = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batches[0])
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=spec)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).with_options(options)
