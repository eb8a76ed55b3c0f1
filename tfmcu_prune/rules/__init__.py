"""What each Keras layer and operation does to channels: how it moves, creates, mixes and stores them.

A rule runs a layer's *data movement* on labels instead of numbers: every element of a tensor carries an integer that
names its channel, so concatenation is `np.concatenate`, flattening is a reshape and an addition is a union.
"""

from tfmcu_prune.rules.flow import (
    Array,
    Axes,
    Flow,
    Labels,
    Rule,
    Size,
    channel_row,
    first_row,
    is_uniform,
    keep,
    kept_shape,
    output_shape,
    rectangular,
    same,
    spread,
    weight_of,
)
from tfmcu_prune.rules.layers import is_augmentation
from tfmcu_prune.rules.table import find_rule, register_rule, rule_for

__all__ = [
    "Array",
    "Axes",
    "Flow",
    "Labels",
    "Rule",
    "Size",
    "channel_row",
    "find_rule",
    "first_row",
    "is_augmentation",
    "is_uniform",
    "keep",
    "kept_shape",
    "output_shape",
    "rectangular",
    "register_rule",
    "rule_for",
    "same",
    "spread",
    "weight_of",
]
