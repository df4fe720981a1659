"""Durations as policies write them: ``250ms``, ``2s``, ``10m``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

PATTERN = r"^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)$"
MAX_S = 86_400.0
"""A day: no budget of a request is longer, so a longer one is a slip of the unit."""

_SHAPE = re.compile(PATTERN)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


def parse_duration(value: object) -> float:
    """Seconds. Raises ValueError, whose message names the accepted forms."""
    match = _SHAPE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a duration: write a number with its unit, such as 250ms, 2s or 10m")
    seconds = round(float(match[1]) * _UNIT_S[match[2]], 6)
    if not 0 < seconds <= MAX_S:
        raise ValueError("is not a usable duration: it has to be over 0 and at most 1440m")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact form, so that equal durations are stored as equal text."""
    for unit, factor in (("m", 60.0), ("s", 1.0), ("ms", 0.001)):
        count = round(seconds / factor, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds / 0.001:.6f}".rstrip("0").rstrip(".") + "ms"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["250ms", "2s", "10m"]}),
]
"""A pydantic type: text in policies and in the store, seconds as ``float`` in the program."""
