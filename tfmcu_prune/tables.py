"""Tables as plain text and as Markdown."""

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
    from rich.text import Text

    table = Table(box=rich.box.ASCII, title=title, title_justify="left")
    rows = list(rows)
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))] if cells else []
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if numeric and numeric[i] else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # names from files are no markup
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def printable(text: str) -> str:
    r"""Return a text without what steers a terminal; line breaks stay.

    Example:
        >>> printable("a\x1b[2Jb")
        'a?[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown; all columns but the first are set right.

    Example:
        >>> print(markdown(("layer", "channels"), [("conv", "1,200")]))
        | layer | channels |
        |---|---:|
        | conv | 1,200 |
    """
    rule = "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])
