"""A table that pipes and narrow terminals show whole: columns that do not fit stand in a further table below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.whole_table import width

_LONGEST_NAME = 24
"""Columns of a row's name beyond which it goes on in the next line, so that figures have room."""


@dataclass(frozen=True, slots=True)
class Row:
    """``cells``: one of each heading, the row's name first."""

    cells: Sequence[str]
    style: str = ""


def print_stacked(console: Console, headings: Sequence[str], rows: Sequence[Row], *, title: str = "") -> None:
    """All columns beside each other where they fit, else in several tables that each begin with the rows' names."""
    for number, columns in enumerate(_groups(console, headings, rows)):
        if number:
            console.print()
        console.print(_table(headings, rows, columns, "" if number else title))


def _groups(console: Console, headings: Sequence[str], rows: Sequence[Row]) -> list[list[int]]:
    """Which columns stand in which table: each takes as many as fit, and one at least."""
    found: list[list[int]] = [[]]
    for column in range(1, len(headings)):
        if found[-1] and width(console, _table(headings, rows, [*found[-1], column], "")).maximum > console.width:
            found.append([])
        found[-1].append(column)
    return found


def _table(headings: Sequence[str], rows: Sequence[Row], columns: Sequence[int], title: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=Text(title) or None)
    table.title_justify = "left"
    table.add_column(headings[0], overflow="fold", max_width=_LONGEST_NAME)
    for column in columns:
        table.add_column(headings[column], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row.cells[column]) for column in (0, *columns)), style=row.style)
    return table
