"""Plain-text tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def render(header: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, width: int = 110) -> str:
    """Return a table as plain text; integers are set right with thousands separated.

    Args:
        header: Titles of the columns.
        rows: Cells: strings, ints or floats.
        title: A line above the table.
        width: Characters a line.

    Example:
        >>> print(render(("layer", "channels"), [("conv", 1200)]))
        +------------------+
        | layer | channels |
        |-------+----------|
        | conv  |    1,200 |
        +------------------+
    """
    import rich.box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=rich.box.ASCII, title=title, title_justify="left")
    rows = list(rows)
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))] if cells else []
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if numeric and numeric[i] else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
