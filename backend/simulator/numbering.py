"""Numbered answers: what is said, token by token (see the package's docstring for the form)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec


@dataclass(frozen=True, slots=True)
class Numbered:
    """An answer's tokens, also as JSON strings without their quotes, and why it ended."""

    tokens: tuple[str, ...]
    escaped: tuple[bytes, ...]
    finish: str

    @property
    def text(self) -> str:
        """All tokens together."""
        return "".join(self.tokens)


@lru_cache(maxsize=4096)
def numbered_text(name: str, length: int, limit: int | None) -> Numbered:
    """The text that ``name`` says in ``length`` tokens, cut after ``limit`` tokens if that is fewer."""
    numbers = max(length - 2, 0)
    return cut((f"{name}:", *(f" {n}" for n in range(numbers)), f" end/{numbers}"), limit)


@lru_cache(maxsize=4096)
def numbered_arguments(name: str, length: int, limit: int | None) -> Numbered:
    """The arguments of a tool call, as ``json.dumps`` spaces them, in ``length`` pieces at least."""
    said = msgspec.json.encode(name).decode()
    numbers = max(length - 2, 1)
    pieces = ['{"answered_by": ', f'{said}, "numbers": [']
    pieces += [f"{n}, " if n < numbers - 1 else f"{n}]}}" for n in range(numbers)]
    return cut(tuple(pieces), limit)


@lru_cache(maxsize=4096)
def continued_text(name: str, length: int, limit: int | None, behind: str) -> Numbered:
    """What ``name`` says behind ``behind``, where that ends with a beginning of its text; else all of it."""
    whole = numbered_text(name, length, None).tokens
    said = behind[behind.rfind(whole[0]) :] if whole[0] in behind else ""
    for count in range(1, len(whole)):
        if "".join(whole[:count]) == said:
            return cut(whole[count:], limit)
    return cut(whole, limit)


def cut(tokens: tuple[str, ...], limit: int | None) -> Numbered:
    """``tokens``, of which a limit leaves so many."""
    whole = limit is None or limit >= len(tokens)
    said = tokens if whole else tokens[:limit]
    return Numbered(said, tuple(msgspec.json.encode(t)[1:-1] for t in said), "stop" if whole else "length")
