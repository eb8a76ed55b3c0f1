"""The errors of this package; each is a ValueError."""

from __future__ import annotations


class BudgetError(ValueError):
    """A budget that cannot be met, or a model that does not fit its budget."""


class UnsupportedLayer(ValueError):
    """A Keras layer, or a use of one, whose channels this package has no rule for."""


class InvalidModel(ValueError):
    """Bytes that are not a TFLite model that TensorFlow Lite Micro could load."""
