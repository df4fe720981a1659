"""One finding about a policy, with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
Location = tuple[str | int, ...]
Part = Literal["fleet", "defaults"] | int
"""Which file: one of the two that are there once, or a customer's by its index."""
Place = tuple[Part, Location]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What is wrong where. ``line`` and ``column`` count from 1; 0 where there is no place in a file."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    @property
    def place(self) -> str:
        """``file:line:column`` as editors and terminals make it a link."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        subject = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {self.severity}: {subject}{self.message}{hint}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic before its place in a file is looked up.

    ``at``: the keys that lead to it. ``given``: all else that it follows from. Where some of that could not be read, it
    may be wrong.
    """

    part: Part
    at: Location
    message: str
    hint: str = ""
    severity: Severity = "error"
    given: tuple[Place, ...] = ()


class Unfit(str):
    """A name that is itself an error: known, and nothing to choose."""

    __slots__ = ()


def key_path(location: Location) -> str:
    """``fallback[0].provider``"""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, whatever its case and whether with - or _."""
    alike = {_folded(one): one for one in known}
    found = difflib.get_close_matches(_folded(word), list(alike), n=1, cutoff=0.6)
    return alike[found[0]] if found else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def meant(word: str, known: Iterable[str], *, noun: str) -> str:
    """A hint: the nearest known word, or else the first known ones."""
    names = sorted(name for name in known if not isinstance(name, Unfit))
    if (near := nearest(word, names)) is not None:
        return f"did you mean {near}?"
    if not names:
        return f"there is no {noun}"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"known: {', '.join(names[:8])}{more}"
