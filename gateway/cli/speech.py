"""How commands speak to people: on stderr, so that stdout holds what was asked for and nothing else."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.text import Text


def said_on() -> Console:
    """Where people are spoken to."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def say(message: str, *, style: str = "") -> None:
    """One line to people."""
    said_on().print(Text(message, style=style))


def failure(message: str, code: int) -> typer.Exit:
    """Say what went wrong, for the caller to raise."""
    say(f"failsoft: {message}", style="red")
    return typer.Exit(code)
