"""Durations as policies write them: ``250ms``, ``2s``, ``10m``; and intervals, of days too: ``24h``, ``7d``."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

PATTERN = r"^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)$"
MAX_S = 86_400.0
"""A day: no budget of a request is longer, so a longer one is a slip of the unit."""

INTERVAL_PATTERN = r"^(\d{1,10}(?:\.\d{1,6})?)(ms|s|m|h|d)$"
LONGEST_INTERVAL_S = 30 * MAX_S

_SHAPE = re.compile(PATTERN)
_INTERVAL_SHAPE = re.compile(INTERVAL_PATTERN)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": MAX_S}


def parse_duration(value: object) -> float:
    """Seconds. Raises ValueError, whose message names the accepted forms."""
    match = _SHAPE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a duration: write a number with its unit, such as 250ms, 2s or 10m")
    seconds = round(float(match[1]) * _UNIT_S[match[2]], 6)
    if not 0 < seconds <= MAX_S:
        raise ValueError("is not a usable duration: it has to be over 0 and at most 1440m")
    return seconds


def parse_interval(value: object, longest_s: float = LONGEST_INTERVAL_S) -> float:
    """Seconds. Raises ValueError, whose message names the accepted forms."""
    match = _INTERVAL_SHAPE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a duration: write a number with its unit, such as 30m, 24h or 7d")
    seconds = round(float(match[1]) * _UNIT_S[match[2]], 6)
    if not 0 < seconds <= longest_s:
        raise ValueError(f"is not a usable duration: it has to be over 0 and at most {longest_s / 3600:g}h")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact form, so that equal durations are stored as equal text."""
    for unit, factor in (("m", 60.0), ("s", 1.0), ("ms", 0.001)):
        count = round(seconds / factor, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds / 0.001:.6f}".rstrip("0").rstrip(".") + "ms"


def format_interval(seconds: float) -> str:
    """The same of an interval."""
    microseconds = round(seconds * 1e6)
    for unit, factor in (("d", MAX_S), ("h", 3600.0)):
        count, rest = divmod(microseconds, int(factor * 1e6))
        if count and not rest:
            return f"{count}{unit}"
    return format_duration(seconds)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["250ms", "2s", "10m"]}),
]
"""A pydantic type: text in policies and in the store, seconds as ``float`` in the program."""


NEVER = "never"
EVERY_PATTERN = rf"{INTERVAL_PATTERN}|^{NEVER}$"


def parse_every(value: object) -> float:
    """Seconds; infinity for ``never``. Raises ValueError, whose message names the accepted forms."""
    if value == NEVER:
        return math.inf
    try:
        return parse_interval(value)
    except ValueError as error:
        raise ValueError(f"{error}, or never") from None


def format_every(seconds: float) -> str:
    """As it was written."""
    return NEVER if math.isinf(seconds) else format_interval(seconds)


Every = Annotated[
    float,
    BeforeValidator(parse_every),
    PlainSerializer(format_every, return_type=str),
    WithJsonSchema({"type": "string", "pattern": EVERY_PATTERN, "examples": ["30m", "24h", "7d", NEVER]}),
]
"""A pydantic type: how often something happens by itself."""
