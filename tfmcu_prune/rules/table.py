"""The one table of rules, and the door for rules of other people's layers."""

from __future__ import annotations

import difflib
from typing import Any

import keras

from tfmcu_prune.errors import UnsupportedLayer
from tfmcu_prune.graph import Call
from tfmcu_prune.rules.flow import Rule
from tfmcu_prune.rules.layers import LAYERS, UNEXPORTED
from tfmcu_prune.rules.operations import OPERATIONS
from tfmcu_prune.rules.sequence import SEQUENCE, time_distributed

TABLE: dict[type, Rule] = {**LAYERS, **SEQUENCE}


def register_rule(layer_class: type, rule: Rule) -> None:
    """Teach the package what a layer of yours does to channels.

    A rule is a function `(call, inputs, labels) -> Flow`. It runs the layer's data movement on labels: `inputs` are
    int64 arrays shaped as the layer's input tensors without the batch axis, and hold the label of each element's
    channel. It returns a `Flow`: the labels of the output, those along the axes of the weights, and along which axis
    of which weight the layer *mixes* its input channels (there the gates act). `call.layer` is the layer,
    `output_shape(call)` the shape of its output, `labels.new(n)` makes channels, `labels.tie(a, b)` keeps or removes
    channels together, and `labels.fix(a, why)` keeps them for good. A layer that mixes channels in any other way than
    by a weight that it names in `reads` must fix them.

    Args:
        layer_class: The class; its subclasses need rules of their own.
        rule: The rule; it replaces one that is there.

    Raises:
        ValueError: Not a Keras layer class, or not callable.

    Example:
        >>> import keras
        >>> import tfmcu_prune
        >>> from tfmcu_prune.rules import Flow, channel_row
        >>> class ChannelScale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")
        ...     def call(self, x):
        ...         return x * self.factor
        >>> def scale_rule(call, inputs, labels):
        ...     row = channel_row(inputs[0], labels, call)       # the channels that come in ...
        ...     return Flow(inputs[0], {"factor": (row,)})       # ... go out, and stand along the axis of a weight
        >>> tfmcu_prune.register_rule(ChannelScale, scale_rule)
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"), ChannelScale(),
        ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> tfmcu_prune.channel_groups(model).groups[0].size
        4
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Operation)):
        raise ValueError(f"Expected a subclass of keras.Layer. Received: {layer_class!r}")
    if not callable(rule):
        raise ValueError(f"Expected a rule, a function (call, inputs, labels) -> Flow. Received: {rule!r}")
    TABLE[layer_class] = rule


def rule_for(call: Call) -> Rule:
    """Return the rule of a call's layer.

    Raises:
        UnsupportedLayer: No rule, or a data format other than channels_last.
    """
    rule = find_rule(call.layer)
    if rule is None:
        raise UnsupportedLayer(_no_rule(call))
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise UnsupportedLayer(
            f"The layer {call.name!r} has data_format='channels_first'; expected 'channels_last' "
            "(keras.config.set_image_data_format('channels_last') before building the model)."
        )
    return rule


TABLE[keras.layers.TimeDistributed] = time_distributed(rule_for)


def find_rule(layer: Any) -> Rule | None:
    """Return the rule of a layer or an operation, if there is one."""
    if type(layer) in TABLE:
        return TABLE[type(layer)]
    if type(layer).__module__.split(".")[0] != "keras":
        return None
    return (UNEXPORTED if isinstance(layer, keras.Layer) else OPERATIONS).get(type(layer).__name__)


def _no_rule(call: Call) -> str:
    kind = type(call.layer).__name__
    known = sorted({cls.__name__ for cls in TABLE} | set(OPERATIONS))
    close = difflib.get_close_matches(kind, known, n=3)
    like = f" (Rules exist for the similarly named {', '.join(close)}.)" if close and close != [kind] else ""
    return (
        f"No rule for the layer {call.name!r} of type {kind}, so its channels cannot be pruned safely.{like} "
        'Either pass fixed="unsupported" to prunable, which keeps all the channels that touch it, or tell what it does '
        f"to channels with tfmcu_prune.register_rule({kind}, rule)."
    )
