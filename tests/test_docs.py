"""The API reference is built from the docstrings, so they are complete."""

from __future__ import annotations

import inspect
import re

import pytest

import tfmcu_prune
from tfmcu_prune import tflm

PUBLIC = [getattr(tfmcu_prune, name) for name in tfmcu_prune.__all__ if name != "tflm"]
PUBLIC += [getattr(tflm, name) for name in tflm.__all__]


def _documented(text):
    """The arguments that a docstring has in its Args."""
    found = re.search(r"^Args:\n(.*?)(?:\n\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^    \*{0,2}(\w+):", found[1], flags=re.MULTILINE) if found else []


@pytest.mark.parametrize("what", PUBLIC, ids=lambda what: what.__name__)
def test_every_public_name_has_a_docstring_with_all_its_arguments(what):
    text = inspect.getdoc(what)
    assert text
    if not (isinstance(what, type) and issubclass(what, Exception)):
        assert _documented(text) == list(inspect.signature(what).parameters)


@pytest.mark.parametrize("what", [what for what in PUBLIC if inspect.isfunction(what)], ids=lambda what: what.__name__)
def test_every_public_function_tells_what_it_returns(what):
    text = inspect.getdoc(what)
    returns = inspect.signature(what).return_annotation not in ("None", None)
    assert not returns or "Returns:" in text or text.startswith("Return ")
