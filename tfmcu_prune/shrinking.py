"""fit(): as model.fit, but the model that trains is cut physically while its masks close."""

from __future__ import annotations

import contextlib
import gc
import inspect
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from absl import logging

from tfmcu_prune import graph as graphs
from tfmcu_prune.callback import PruneCallback
from tfmcu_prune.channels import analyze_graph
from tfmcu_prune.gates import SizedGates, gates_of
from tfmcu_prune.gating import channels_of, gate, get_mask, own_steps
from tfmcu_prune.rules import Array, weight_of
from tfmcu_prune.surgery import rebuilt

_SPEEDUP = 0.7  # part of the saved MACs that is seen as saved time


def fit(gated: keras.Model, *args: Any, **kwargs: Any) -> keras.callbacks.History:
    """Train a gated model like `gated.fit(*args, **kwargs)`, in less time as channels go.

    At the end of an epoch, where it pays, the channels that the mask has removed are cut out of a twin of the model,
    which trains in its place: kernels, batch statistics and the optimizer's slots. After each epoch the twin's numbers
    are written back, so that callbacks, checkpoints and `strip` see one model in one training; what a callback changes
    in the middle of an epoch need not reach the twin. A channel that is out at the end of an epoch does not come back.
    A cut starts an endless dataset anew, loses what Keras has fetched ahead of a generator, and under JAX clears the
    caches of compiled functions. Where several processes train one model, use `gated.fit`: their clocks would not agree
    on the epoch.

    Args:
        gated: What `prunable` returned, compiled. It is cut only if its loss and metrics are of Keras or registered
            with `keras.saving.register_keras_serializable`, since the twin is compiled from the configuration.
        *args: As for `gated.fit`.
        **kwargs: As for `gated.fit`. A `PruneCallback()` comes first in the callbacks; without one it is added.

    Returns:
        The `History` of all epochs.

    Raises:
        ValueError: Not a compiled gated model, one with its own `train_step`, or more than one PruneCallback.

    Example:
        >>> import keras
        >>> import tfmcu_prune
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(),
        ...                           keras.layers.Dense(2)])
        >>> gated = tfmcu_prune.prunable(model, tfmcu_prune.Budget(macs=1500))
        >>> gated.compile("adam", "mse")
        >>> x, y = np.ones((8, 8, 8, 1)), np.ones((8, 2))
        >>> history = fit(gated, x, y, batch_size=2, epochs=3, verbose=0)
        >>> history.history["channels"][-1]
        3
    """
    gates_of(gated)
    if not getattr(gated, "compiled", False):
        raise ValueError("Expected a compiled model: call gated.compile(optimizer, loss) first.")
    if own := own_steps(gated):
        raise ValueError(
            f"The model {gated.name!r} has its own {', '.join(own)}, which the smaller model that trains in its place "
            "would lack. Use gated.fit(...), which does not cut."
        )
    bound = inspect.signature(gated.fit).bind(*args, **kwargs)
    bound.apply_defaults()
    options = dict(bound.arguments)
    relay = _Relay(gated, options["callbacks"], options["epochs"])
    worker, epoch = gated, options["initial_epoch"]
    try:
        while True:
            worker.fit(**{**options, "callbacks": [relay], "initial_epoch": epoch})
            if relay.twin is None or not relay.cutting:
                return relay.history
            worker, epoch = relay.twin.model, relay.epoch + 1
            relay.go_on()
    except BaseException:
        relay.pull()  # nothing that has been learned is lost
        raise


_Place = tuple[Any, Any, Any]


@dataclass(frozen=True)
class _Twin:
    """A smaller model that trains in place of the gated one, and where its numbers belong there.

    Args:
        model: The smaller gated model.
        kept: The channels of the gated model that it has, bool, shape (channels,).
        weights: Variable of the gated model, variable of the twin, indices of the kept part; `None` for all of it.
        slots: The same of the two optimizers.
        gates: Those of both that belong to the gates: what an update of the mask changes.
    """

    model: keras.Model
    kept: Array
    weights: Sequence[_Place]
    slots: Sequence[_Place]
    gates: Sequence[_Place]

    def push(self, places: Sequence[_Place] | None = None) -> None:
        """Write the gated model's numbers into the twin: all, or those of some places."""
        for full, small, index in (*self.weights, *self.slots) if places is None else places:
            value = keras.ops.convert_to_numpy(full)
            small.assign(value if index is None else value[index])

    def pull(self, places: Sequence[_Place] | None = None) -> None:
        """Write the twin's numbers into the gated model: all, or those of some places."""
        for full, small, index in (*self.weights, *self.slots) if places is None else places:
            value = keras.ops.convert_to_numpy(small)
            if index is not None:
                whole = np.array(keras.ops.convert_to_numpy(full))
                whole[index] = value
                value = whole
            full.assign(value)


def _twin(gated: keras.Model) -> _Twin:
    """Build the model without the removed channels, compiled alike, its optimizer in the same state."""
    channels, kept = channels_of(gated), get_mask(gated)
    small = rebuilt(channels, kept, np.ones(channels.count))
    layer = gates_of(gated)
    kind = {"learn_sizes": isinstance(layer, SizedGates), "trained": layer.trained}
    model = gate(analyze_graph(graphs.read(small), layer.limits), layer.budget, **kind)
    try:  # it builds the optimizer, which must not be done again: that doubles a loss scale
        model.compile_from_config(gated.get_compile_config())
    except (TypeError, ValueError) as error:  # what Keras raises for a class or function that it cannot find
        raise _NotSliceable(
            "its loss, metrics or optimizer cannot be made anew from their configuration; register what is your own "
            f"with keras.saving.register_keras_serializable: {error}"
        ) from error
    _exclude_alike(gated.optimizer, model.optimizer)
    keep, index = np.append(kept, True), dict[int, Any]()
    for call, flow in zip(channels.graph.calls, channels.flows, strict=True):
        for name, axes in flow.weights.items():
            weight = weight_of(call.layer, name)
            labels = zip(axes, weight.shape, strict=True)
            index[id(weight)] = np.ix_(*(np.arange(n) if a is None else np.flatnonzero(keep[a]) for a, n in labels))
    for weight in layer.channelwise:
        index[id(weight)] = np.flatnonzero(kept)
    pairs = list(zip(_variables(gated), _variables(model), strict=True))
    weights = [(full, twin, index.get(id(full))) for full, twin in pairs]
    slots = list(_slots(gated, model, index))
    own, name = {id(variable) for variable in layer.variables}, layer.offset.path.replace("/", "_")
    gates = [place for place in weights if id(place[0]) in own] + [place for place in slots if name in place[0].path]
    result = _Twin(model, kept, weights, slots, gates)
    result.push()
    return result


def _exclude_alike(source: Any, target: Any) -> None:
    """Exclude the same variables from weight decay, which an optimizer's configuration leaves out.

    Keras has no public way to read this, so two attributes of the optimizer are read if they are there.
    """
    source, target = (getattr(optimizer, "inner_optimizer", optimizer) for optimizer in (source, target))
    if getattr(source, "_exclude_from_weight_decay", None):
        raise _NotSliceable("exclude_from_weight_decay(var_list=...) names variables; give var_names instead")
    pattern = getattr(source, "_exclude_from_weight_decay_pattern", None)
    if pattern is not None:
        target.exclude_from_weight_decay(var_names=[pattern.pattern])


def _variables(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        yield from layer.variables


def _slots(gated: keras.Model, small: keras.Model, index: dict[int, Any]) -> Iterator[_Place]:
    """Pair the variables of two optimizers; a slot is cut as the weight that it belongs to."""
    owners = {weight.path.replace("/", "_"): weight for weight in gated.trainable_variables}
    for full, twin in zip(gated.optimizer.variables, small.optimizer.variables, strict=True):
        if tuple(full.shape) == tuple(twin.shape):
            yield full, twin, None
            continue
        names = [name for name, weight in owners.items() if name in full.path and weight.shape == full.shape]
        if not names:
            raise _NotSliceable(f"the slot {full.path!r}, of shape {tuple(full.shape)}, has not its weight's shape")
        yield full, twin, index[id(owners[max(names, key=len)])]


def _devices_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Where new variables are on the devices that a model trains on; other backends have one place for all."""
    return model.distribute_strategy.scope() if keras.backend.backend() == "tensorflow" else contextlib.nullcontext()


def _forget_compiled() -> None:
    """Free the functions compiled for the model before; JAX keeps those of models that are gone until it is told to."""
    gc.collect()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


class _NotSliceable(ValueError):
    """A model that no twin can be made of: its optimizer cannot be cut with the weights, or it cannot be compiled."""


class _Relay(keras.callbacks.Callback):
    """Stands in for the user's callbacks in each of the fits, so that they see one training of the gated model."""

    def __init__(self, gated: keras.Model, callbacks: Any, epochs: int) -> None:
        super().__init__()
        given = list(keras.tree.flatten(callbacks)) if callbacks else []
        pruning = [callback for callback in given if isinstance(callback, PruneCallback)]
        if len(pruning) > 1:
            raise ValueError(f"Expected one PruneCallback. Received: {len(pruning)} of them.")
        self.pruning = pruning[0] if pruning else PruneCallback()
        histories = [callback for callback in given if isinstance(callback, keras.callbacks.History)]
        self.history = histories[0] if histories else keras.callbacks.History()
        others = [callback for callback in given if callback is not self.pruning and callback is not self.history]
        self.callbacks = [self.pruning, *others, self.history]  # the first one's figures are in the logs of the others
        self.gated, self.epochs, self.epoch = gated, epochs, 0
        self.twin: _Twin | None = None
        self.cutting, self.can_cut, self.begun = False, True, False

    def pull(self, *, slots: bool = True) -> None:
        if self.twin is not None:
            _ = self.model  # under JAX this brings the model's variables up to date
            self.twin.pull(None if slots else [*self.twin.weights, *self.twin.gates])

    def push(self, *, slots: bool = True) -> None:
        if self.twin is not None:
            self.twin.push(None if slots else [*self.twin.weights, *self.twin.gates])

    def cut(self) -> bool:
        """Make a smaller twin, if the optimizer allows it."""
        try:
            with _devices_of(self.gated):
                self.twin = _twin(self.gated)
        except _NotSliceable as error:
            self.can_cut = False
            logging.warning("tfmcu_prune: the model is not cut while it trains, since %s", error)
        return self.can_cut

    def go_on(self) -> None:
        """Let the twin take the place of the model that has trained so far."""
        self.cutting = self.gated.stop_training = False
        self.pull()  # at the end of its fit Keras has put averages (use_ema) into the gated model
        _forget_compiled()

    def on_train_begin(self, logs: Any = None) -> None:
        self._began, self._overhead = time.perf_counter(), 0.0
        if self.begun:
            return
        self.begun, self.gated.stop_training = True, False
        for callback in self.callbacks:
            callback.set_params(self.params)
            callback.set_model(self.gated)
        self.gated.history = self.history
        self._tell("on_train_begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        if not self.cutting:
            self.pull()
            self._tell("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self._times = epoch, list[float]()
        self._tell("on_epoch_begin", epoch, logs)
        self.pruning.cut(get_mask(self.gated))  # cut or not, so that the time does not decide what is kept
        self.push()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.pull()
        self._tell("on_epoch_end", epoch, logs)
        self.push()
        stopped = self.gated.stop_training
        self.cutting = not stopped and self.can_cut and self._pays(self.epochs - epoch - 1) and self.cut()
        self.model.stop_training = stopped or self.cutting

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_train_batch_begin", batch, logs)
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        if not self._overhead:
            self._overhead = now - self._began
        else:
            self._times.append(now - self._step_began)
        due = self.pruning.is_due(batch)
        if due:
            self.pull(slots=False)  # of the slots a salience reads those of the gates
        self._tell("on_train_batch_end", batch, logs)
        if due:
            self.push(slots=False)

    def on_test_begin(self, logs: Any = None) -> None:
        self._tell("on_test_begin", logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._tell("on_test_end", logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._tell("on_test_batch_end", batch, logs)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)

    def _pays(self, epochs: int) -> bool:
        """Whether a twin saves more time, by the end or until the mask is frozen, than it and its tracing take."""
        if not self._times:
            return False
        mask = get_mask(self.gated)
        before = self.pruning.cost(np.ones_like(mask) if self.twin is None else self.twin.kept).macs
        now = self.pruning.cost(mask).macs
        step, steps = statistics.median(self._times), len(self._times) + 1
        epochs = min(epochs, self.pruning.epochs_until_frozen() or epochs)
        saved = _SPEEDUP * (1 - now / max(before, 1)) * step * steps * epochs
        return saved > self._overhead - step
