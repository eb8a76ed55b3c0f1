"""The templates of the C++ sources and the files around them.

A template is given numbers and names that are made safe (`names.identifier`) only: there is nothing to escape in C++.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, "."),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def rendered(template: str, **values: Any) -> str:
    """Return a template of this folder, `template` without `.jinja`, filled in."""
    return _environment().get_template(f"{template}.jinja").render(**values)
