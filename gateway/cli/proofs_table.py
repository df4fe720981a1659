"""When each step of the fallback was last seen to work, as `failsoft status` shows it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

_WORDS = {
    "failed": "[red]{} failed[/]",
    "stale": "[red]{} stale[/]",
    "unproven": "[yellow]{} not proven yet[/]",
    "proven": "[green]{} proven[/]",
}


def proofs_table(drills: dict[str, Any]) -> Table:
    """One line a provider, and one for each fleet's base model."""
    table = Table("fallback step", "customers", "ways to ask it", "oldest proof", "last error")
    for step in drills["steps"]:
        counts = ", ".join(words.format(step[state]) for state, words in _WORDS.items() if step[state])
        if step["held_back"]:
            counts += f" ([yellow]{step['held_back']} held back by a cap[/])"
        age_s = step["oldest_age_s"]
        table.add_row(
            escape(step["step"]),
            str(step["customers"]),
            counts,
            "–" if age_s is None else f"{age(age_s)} ago",
            escape(step["last_error"]) or "–",
        )
    return table


def age(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h``, ``2 d``"""
    for unit, factor in (("d", 172_800), ("h", 7200), ("min", 120)):
        if seconds >= factor:
            return f"{seconds / {'d': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
