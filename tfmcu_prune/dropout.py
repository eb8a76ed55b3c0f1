"""Dropout for the channels that will be left: what suits a wide layer drowns a narrow one in noise."""

from __future__ import annotations

import keras
import numpy as np

from tfmcu_prune.channels import Channels
from tfmcu_prune.rules import Array

_KINDS = (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)  # Spatial ones are Dropout too


def reduced_rates(channels: Channels, sizes: Array) -> dict[str, float]:
    """Return the rate of each dropout layer at which its noise stays what it is, once some channels are gone.

    A sum over n channels that are dropped at the rate p has a relative variance of p / (1 - p) / n. It stays where

        q / (1 - q) = (n / N) p / (1 - p)

    with the rate q of the n channels that are left of the N that the layer drops at the rate p.

    Rates that recurrent and attention layers hold themselves are left alone.

    Args:
        channels: The channels of a model.
        sizes: Channels kept a group, int64, shape (groups,).

    Returns:
        The rates by name of the layer, without those that stay as they are. A layer that is called several times has
        the rate of its first call.

    Example:
        >>> import keras
        >>> from tfmcu_prune.channels import channel_groups
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12), keras.layers.Dropout(0.5, name="drop"),
        ...                           keras.layers.Dense(2)])
        >>> reduced_rates(channel_groups(model), np.array([3]))
        {'drop': 0.2}

    Source: ours, from Wager et al. 2013 (arXiv 1307.1493), where p / (1 - p) is the strength of dropout. Han et al.
        2015 (arXiv 1506.02626, section 3.2) reduce the rate with the square root of the connections left. The
        method ours:dropout=0 of tools/benchmark.py keeps the rates.
    """
    part = np.ones(channels.count + 1)  # what is left of each channel's group; the last one is of those kept for good
    for group, size in zip(channels.groups, sizes, strict=True):
        part[group.channels] = size / group.size
    rates: dict[str, float] = {}
    for call in channels.graph.calls:
        layer = call.layer
        if isinstance(layer, _KINDS) and 0 < layer.rate < 1:
            left = part[channels.labels[call.inputs[0]]].mean()
            odds = left * layer.rate / (1 - layer.rate)
            if left < 1:
                rates.setdefault(call.name, round(float(odds / (1 + odds)), 4))
    return rates
