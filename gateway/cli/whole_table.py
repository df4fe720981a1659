"""Tables of which nothing is cut off: where the columns do not fit, each row is written as a list, as in a CI log."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

ANY_WIDTH = 10_000
"""Wider than any screen: how wide a table has to be does not depend on the screen that it is shown on."""


def print_whole(console: Console, table: Table) -> None:
    """Print ``table`` with words wrapped and none cut: as lists, headed by the first column, where it is too wide."""
    if width(console, table).minimum <= console.width:
        console.print(table)
        return
    if table.title is not None:
        console.print(table.title)
    names, *rows = (
        list(cells) for cells in zip(*((column.header, *column.cells) for column in table.columns), strict=True)
    )
    for head, *cells in rows:
        console.print(_line(names[0], head))
        fields = Table.grid(padding=(0, 2))
        fields.add_column(no_wrap=True)
        fields.add_column(overflow="fold")
        for name, cell in zip(names[1:], cells, strict=True):
            fields.add_row(f"  {name}", cell)
        console.print(fields)


def width(console: Console, table: Table) -> Measurement:
    """How many columns ``table`` takes, at least with words wrapped and at most with none."""
    return Measurement.get(console, console.options.update(width=ANY_WIDTH), table)


def _line(name: RenderableType, cell: RenderableType) -> Text:
    # A cell that is no markup may hold what somebody else chose.
    value = cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))
    value.stylize("bold")
    return Text.assemble(f"{name} ", value, overflow="fold")
