"""The tensors in the configuration of a model, as Keras writes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras

Key = tuple[str, int, int]
"""A tensor: layer name, index of the call, index of the output; Keras' `keras_history`."""


def key_of(entry: Any) -> Key:
    """Return the key of a serialized tensor."""
    return tuple(entry["config"]["keras_history"])


def entries(value: Any) -> Iterator[Any]:
    """Yield the serialized tensors in a part of a model's configuration."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value
        else:
            yield from itertools.chain.from_iterable(map(entries, value.values()))
    elif isinstance(value, (list, tuple)):
        yield from itertools.chain.from_iterable(map(entries, value))


def parsed(value: Any, tensors: Mapping[Key, Any]) -> Any:
    """Return serialized arguments of a call, with what stands for each tensor in its place."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return tensors[key_of(value)]
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        return tuple(parsed(item, tensors) for item in value["config"]["value"])
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, dict):
        return {name: parsed(item, tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [parsed(item, tensors) for item in value]
    return value


def _is_key(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)


def keys_in(value: Any) -> Iterator[Key]:
    """Yield the keys in a model's `input_layers` or `output_layers`, in the order of `model.inputs`."""
    if _is_key(value):
        yield tuple(value)
    else:
        items = (value[name] for name in sorted(value)) if isinstance(value, dict) else iter(value)
        yield from itertools.chain.from_iterable(map(keys_in, items))


def structured(value: Any, tensors: Mapping[Key, Any]) -> Any:
    """Return a model's `input_layers` or `output_layers` with what stands for each tensor in its place."""
    if _is_key(value):
        return tensors[tuple(value)]
    if isinstance(value, dict):
        return {name: structured(item, tensors) for name, item in value.items()}
    return [structured(item, tensors) for item in value]
