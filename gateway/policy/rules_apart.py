"""A customer's rules, apart from the rest of it: most have the rules of others, and one look at those is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from gateway.policy.models import Rules

RULES = tuple(Rules.model_fields)
MOST_RULES = 1_000
"""Different ones that are remembered."""

_IS_RULE = frozenset(RULES)
_Value = TypeVar("_Value")


def without_rules(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """All else that it says. That can be validated by itself, as nothing in the model is about two of its keys."""
    return {name: value for name, value in values.items() if name not in _IS_RULE}
