"""Rules that say which requests go wrong, and how; data from outside, checked on the way in."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, get_type_hints

import msgspec

from backend.simulator.answer import Answer
from backend.simulator.fault_scripts import ANSWER_FAULTS
from backend.simulator.journal import Entry
from backend.simulator.steps import Script


class BadRule(ValueError):
    """A rule that cannot be used; the message says why, and what there is."""


def refuse(*, seconds: float | None = None, cut: bool = True) -> None:
    """Stop listening for ``seconds`` (null: until the rules change); ``cut`` resets all connections as well."""


def freeze(*, seconds: float | None = None, healthy: bool = False) -> None:
    """Answer nothing for ``seconds`` (null: until the rules change), as under SIGSTOP; running answers stand still.

    ``healthy``: only the model's answers, as when the engine hangs and its server does not.
    """


SERVER_FAULTS: Final[dict[str, Callable[..., None]]] = {"refuse": refuse, "freeze": freeze}
"""Faults of the whole server, not of an answer: these only say what the parameters are."""

CONDITIONS: Final[dict[str, Any]] = {
    "adapter": str | None,
    "path": str | None,
    "contains": str | None,
    "count": int | None,
    "probability": float,
}
"""What decides whether a rule acts on a request; see :class:`Rule`."""


@dataclass(slots=True)
class Rule:
    """One rule. It acts on a request that meets all its conditions, and then no later rule does.

    ``adapter``: the request's ``model``. ``path``: the exact path; without one, the paths where a model answers.
    ``contains``: text that is in the request's body. ``count``: how many times it acts before it is spent.
    ``probability``: of acting, drawn from the simulator's seeded generator.
    """

    fault: str
    parameters: dict[str, Any]
    adapter: str | None = None
    path: str | None = None
    contains: str | None = None
    count: int | None = None
    probability: float = 1.0
    fired: int = field(default=0, compare=False)

    def meets(self, entry: Entry, generating: frozenset[str]) -> bool:
        """Whether the request meets the conditions that are not random."""
        return (
            (self.count is None or self.fired < self.count)
            and (entry.path == self.path if self.path is not None else entry.path in generating)
            and (self.adapter is None or self.adapter == entry.model)
            and (self.contains is None or self.contains.encode() in entry.body)
        )

    def script(self, answer: Answer) -> Script:
        """What becomes of ``answer``."""
        return ANSWER_FAULTS[self.fault](answer, **self.parameters)

    def shown(self) -> dict[str, Any]:
        """As ``GET /simulator/faults`` gives it; what is not set is left out."""
        conditions = {name: value for name in CONDITIONS if (value := getattr(self, name)) is not None}
        return {"fault": self.fault, **conditions, **self.parameters, "fired": self.fired}


class Rules:
    """The rules in force."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self._rules: tuple[Rule, ...] = ()

    def replace(self, rules: tuple[Rule, ...]) -> None:
        """From now on these."""
        self._rules = rules

    def server_fault(self, name: str) -> Rule | None:
        """The rule that puts the whole server into this state, if there is one."""
        return next((rule for rule in self._rules if rule.fault == name), None)

    def pick(self, entry: Entry, generating: frozenset[str]) -> Rule | None:
        """The rule that acts on this request; counts that it did."""
        for rule in self._rules:
            if rule.fault in SERVER_FAULTS or not rule.meets(entry, generating):
                continue
            if rule.probability >= 1.0 or self._random.random() < rule.probability:
                rule.fired += 1
                return rule
        return None

    def __bool__(self) -> bool:
        return bool(self._rules)

    def shown(self) -> list[dict[str, Any]]:
        """All of them."""
        return [rule.shown() for rule in self._rules]


def parse_rules(data: bytes) -> tuple[Rule, ...]:
    """Rules from a JSON list, or from one object. Raises BadRule."""
    try:
        given = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRule(f"not JSON: {error}") from None
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        raise BadRule("a list of rules is wanted, each an object with a `fault`")
    return tuple(parse_rule(rule) for rule in given)


def parse_rule(given: Any) -> Rule:
    """One rule. Raises BadRule."""
    name = given.get("fault") if isinstance(given, dict) else None
    known = ANSWER_FAULTS | SERVER_FAULTS
    if not isinstance(name, str) or name not in known:
        raise BadRule(f"unknown fault {name!r}; there are: {', '.join(sorted(known))}")
    accepted = _parameters(known[name])
    conditions = {} if name in SERVER_FAULTS else CONDITIONS
    for key in given.keys() - {"fault"} - accepted.keys() - conditions.keys():
        raise BadRule(f"fault {name} takes no `{key}`; it takes: {', '.join([*accepted, *conditions]) or 'nothing'}")
    return Rule(
        name,
        {key: _converted(name, key, given[key], kind) for key, kind in accepted.items() if key in given},
        **{key: _converted(name, key, given[key], kind) for key, kind in conditions.items() if key in given},
    )


def known_faults() -> dict[str, dict[str, Any]]:
    """Every fault: what it does, its parameters with their defaults."""
    return {
        name: {
            "does": (function.__doc__ or "").partition("\n")[0],
            "parameters": {
                key: parameter.default
                for key, parameter in inspect.signature(function).parameters.items()
                if parameter.kind is parameter.KEYWORD_ONLY
            },
        }
        for name, function in sorted((ANSWER_FAULTS | SERVER_FAULTS).items())
    }


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function)
    signature = inspect.signature(function)
    return {key: hints[key] for key, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def _converted(fault: str, key: str, value: Any, kind: Any) -> Any:
    try:
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadRule(f"fault {fault}, `{key}`: {error}") from None
    if isinstance(converted, int | float) and not isinstance(converted, bool) and converted < 0 and key != "by":
        raise BadRule(f"fault {fault}, `{key}`: not below zero")
    return converted
