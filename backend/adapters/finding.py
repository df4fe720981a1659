"""One thing that is wrong with an adapter, or worth knowing, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning", "info"]

_LONGEST: Final = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """``message`` says what is wrong, ``remedy`` what to do, ``modules`` where, if not everywhere.

    ``code`` is an interface: scripts may rely on it.
    """

    code: str
    severity: Severity
    message: str
    remedy: str = ""
    modules: tuple[str, ...] = ()


def error(code: str, message: str, remedy: str, modules: Iterable[str] = ()) -> Finding:
    """It cannot be loaded, or would not answer as it was trained to."""
    return Finding(code, "error", message, remedy, tuple(modules))


def warning(code: str, message: str, remedy: str, modules: Iterable[str] = ()) -> Finding:
    """It may well be meant, but is worth a look before customers meet it."""
    return Finding(code, "warning", message, remedy, tuple(modules))


def info(code: str, message: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(code, "info", message, remedy)


def shown(value: object) -> str:
    """``value`` as one short line: what stands in somebody's file must not move the cursor of whoever reads of it."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def listed(names: Iterable[str]) -> str:
    """Some names in a few words: `model.layers.0.mlp.up_proj and 13 others`."""
    first, *others = names
    if not others:
        return shown(first)
    return f"{shown(first)} and {len(others)} other{'s' if len(others) > 1 else ''}"


def where(modules: Iterable[str]) -> str:
    """The same, as a place."""
    return f"in {listed(modules)}"
