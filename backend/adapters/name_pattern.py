"""PEFT's patterns for module names, which are regular expressions out of somebody else's file.

Python's ``re`` cannot be given a time limit, so a pattern that might take for ever is not run at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeVar

_Value = TypeVar("_Value")

LONGEST_NAME: Final = 128
"""Of a module; no model comes near."""
_MOST_STEPS: Final = LONGEST_NAME**3
_LONGEST_PATTERN: Final = 2_000
_REPEATED_GROUP: Final = re.compile(r"\)[*+{]")
_UNBOUNDED: Final = re.compile(r"[*+{]")


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
    # A repeated group may backtrack without end; k unbounded repeats in a row take at most length ** k steps.
    repeats = len(_UNBOUNDED.findall(whole))
    if len(pattern) > _LONGEST_PATTERN or _REPEATED_GROUP.search(pattern) or length**repeats > _MOST_STEPS:
        raise PatternRefused("is a regular expression that may take for ever")
    try:
        return re.compile(whole)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternRefused(f"is no regular expression: {error}") from None
