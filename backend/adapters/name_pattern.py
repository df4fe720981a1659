"""PEFT's patterns for module names, which are regular expressions out of somebody else's file.

Python's ``re`` cannot be given a time limit, so a pattern that might take for ever is not run at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeVar

_Value = TypeVar("_Value")

LONGEST_NAME: Final = 96
"""Of a module; no model comes near."""
_MOST_STEPS: Final = 4 * LONGEST_NAME**3  # PEFT's own repeat and two more; some seconds at the very worst
_LONGEST_PATTERN: Final = 2_000
_REFUSED: Final = re.compile(
    r"\)[*+{]"  # a repeated group: it may backtrack without end
    r"|\(\?[^:]"  # flags, which change how all else is read, and what looks around
    r"|\[\^?\[|--|&&|~~|\|\|"  # what a later Python will take for operations on sets, and warns of
)
_READ: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\(\?:|.", re.DOTALL)
_UNBOUNDED: Final = frozenset("*+{")


class PatternRefused(ValueError):
    """A pattern that is no regular expression, or one that might not come to an end."""


def first_match(patterns: Mapping[str, _Value], module: str) -> _Value | None:
    """The value of the first key that is a suffix of ``module`` from a dot on: PEFT's rule for `rank_pattern`.

    Raises PatternRefused.
    """
    for key, value in patterns.items():
        if _compiled(rf"(?:.*\.)?(?:{key})$", key, len(module)).match(module):
            return value
    return None


def matches_whole(pattern: str, module: str) -> bool:
    """PEFT's rule for a `target_modules` that is one string. Raises PatternRefused."""
    return _compiled(pattern, pattern, len(module)).fullmatch(module) is not None


def named(names: tuple[str, ...], module: str) -> bool:
    """PEFT's rule for a `target_modules` that is a list: the name, or its end from a dot on."""
    return any(module == name or module.endswith(f".{name}") for name in names)


@lru_cache(maxsize=4096)
def _compiled(whole: str, pattern: str, length: int) -> re.Pattern[str]:
    if len(pattern) > _LONGEST_PATTERN or _REFUSED.search(pattern) or _steps(whole, length) > _MOST_STEPS:
        raise PatternRefused("is a regular expression that may take too long")
    try:
        return re.compile(whole)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternRefused(f"is no regular expression: {error}") from None


def _steps(pattern: str, length: int) -> int:
    """In how many ways the pattern may be laid over a name, at most; no group is repeated."""
    ways = 1
    alternatives = [1]
    for piece in _READ.findall(pattern):
        if piece in {"(", "(?:"}:
            alternatives.append(1)
        elif piece == ")" and len(alternatives) > 1:
            ways *= alternatives.pop()
        elif piece == "|":
            alternatives[-1] += 1
        elif piece == "?":
            ways *= 2
        elif piece in _UNBOUNDED:
            ways *= max(length, 2)
        if ways > _MOST_STEPS:
            break
    for count in alternatives:
        ways *= count
    return ways
