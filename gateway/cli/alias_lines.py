"""Aliases that split, as `failsoft status` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape

MOST_LINES = 10
"""The JSON has all."""


def split_lines(splits: list[dict[str, Any]]) -> Iterator[str]:
    """A line an alias: the weights, and the shares that requests since the start have had."""
    for split in splits[:MOST_LINES]:
        total = sum(version["requests"] for version in split["versions"])
        each = ", ".join(
            f"{escape(version['adapter'])} weight {version['weight']}, {version['requests']} requests"
            + (f" ({version['requests'] / total:.1%})" if total else "")
            for version in split["versions"]
        )
        yield f"alias [bold]{escape(split['alias'])}[/] of {escape(split['customer'])}: {each}"
    if (more := len(splits) - MOST_LINES) > 0:
        yield f"and {more} more aliases that split (--json shows them)"
