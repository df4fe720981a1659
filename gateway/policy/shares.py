"""Shares as policies write them: ``0.5%``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

PATTERN = r"^(\d{1,3}(?:\.\d{1,6})?)%$"

_SHAPE = re.compile(PATTERN)


def parse_share(value: object) -> float:
    """From 0 to 1. Raises ValueError, whose message names the accepted form."""
    match = _SHAPE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a share: write a number with a percent sign, such as 0.5%")
    share = round(float(match[1]) / 100, 8)
    if not 0 < share <= 1:
        raise ValueError("is not a usable share: it has to be over 0% and at most 100%")
    return share


def format_share(share: float) -> str:
    """The shortest exact form."""
    return f"{share * 100:.6f}".rstrip("0").rstrip(".") + "%"


Share = Annotated[
    float,
    BeforeValidator(parse_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["0.5%"]}),
]
"""A pydantic type: text in policies and in the store, 0 to 1 as ``float`` in the program."""
