"""How the adapters on the boxes stand, in words: for `failsoft status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape

_MOST = 5
"""Names a line gives; the JSON has all."""


def sync_lines(boxes: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One line about all, and one for each box where something is missing or waits."""
    if not boxes:
        return
    acting = any(box["acting"] for box in boxes)
    yield (
        "adapters on the boxes are kept as policies name them "
        + ("by this gateway" if acting else "by another gateway on this store, or none yet")
    )
    for box in boxes if acting else ():
        parts = [f"[red]{escape(box['trouble'])}[/]"] if box["trouble"] else []
        if box["looked_s_ago"] is None:
            parts.append("not looked at yet")
        if box["pending"]:
            parts.append(f"[yellow]missing or without an answer: {escape(some(box['pending']))}[/]")
        parts += [
            f"[red]{escape(one['adapter'])} {escape(one['why'])}[/], tried again in {one['retry_in_s']:.0f} s"
            for one in box["failed"][:_MOST]
        ]
        parts += [f"{escape(one['adapter'])} {escape(one['why'])}" for one in box["waiting"][:_MOST]]
        if box["not_ours"]:
            parts.append(f"not ours: {escape(some(box['not_ours']))}")
        if parts:
            yield f"adapters of {escape(box['box'])}: {'; '.join(parts)}"


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
