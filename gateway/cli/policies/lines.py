"""How a difference is shown: its words by whom they are about, and the lines of the files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from gateway.cli.speech import say
from gateway.policy.difference import Change
from gateway.policy.effect_words import named

_STYLES = {"+++": "bold", "---": "bold", "@@": "cyan", "+": "green", "-": "red"}


def line_difference(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A unified diff of all files, by path."""
    lines: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
            lines += difflib.unified_diff((old or "").splitlines(), (new or "").splitlines(), *names, lineterm="")
    return lines


def show_changes(changes: Sequence[Change], against: str, *, only_text: bool) -> None:
    """In words, on stdout. What is the same for several customers is one line."""
    if not changes:
        text = ", only the text of the files" if only_text else ""
        say(f"nothing changes for anybody beside {against}{text}", style="green")
        return
    say(f"beside {against}:", style="bold")
    subjects: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        alone = "" if change.kind == "customer" else change.name
        subjects.setdefault((f"{change.kind} {alone}", change.words), []).append(change.subject)
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for (_, words), found in subjects.items():
        console.print(Text(named(found), style="bold").append(f": {words}", style="none"))


def show_lines(lines: Sequence[str]) -> None:
    """On stdout."""
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    if lines:
        console.print()
    for line in lines:
        style = next((style for begin, style in _STYLES.items() if line.startswith(begin)), "none")
        console.print(Text(line, style=style))
