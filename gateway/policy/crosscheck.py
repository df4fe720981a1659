"""What can only be seen with all files side by side: references, names that clash, keys that are taken twice."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Protocol

from gateway.policy.compiled import FROM_ENVIRONMENT
from gateway.policy.diagnostics import Finding, Location, Part, Place, key_path, meant
from gateway.policy.durations import format_duration
from gateway.policy.effective import BUILT_IN_PROVIDER, effective
from gateway.policy.engine_check import engine_findings
from gateway.policy.models import (
    AdminToken,
    CustomerFile,
    FleetFile,
    KnownKey,
    ProviderStep,
    Rules,
    StaticStep,
    Step,
)
from gateway.policy.plain_customer import Own
from gateway.policy.prices import step_price

Locate = Callable[[Part, Location], str]
"""Where a key is, in words for people: ``customers/acme.yaml:6:12``."""

OFTEN_S = 600.0
"""Drills that come more often than this are more likely a slip than meant."""


class Customer(Protocol):
    """Whose adapters are counted."""

    @property
    def fleet(self) -> str | None: ...
    @property
    def adapters(self) -> Sequence[str]: ...


def by_name(customers: Sequence[Own]) -> Locate:
    """Places by the customer's name, for policies that did not come from files."""
    return lambda part, at: (
        f"{part if isinstance(part, str) else f'customer {customers[part].customer}'}, {key_path(at)}"
    )


@dataclass
class _Taken:
    """What has been given away so far, and to whom: customer index and place."""

    base_models: frozenset[str]
    customers: dict[str, tuple[int, Location]] = field(default_factory=dict)
    adapters: dict[str, tuple[int, Location]] = field(default_factory=dict)
    digests: dict[str, tuple[int, Location]] = field(default_factory=dict)


def crosscheck(
    fleet: FleetFile,
    defaults: Rules,
    customers: Sequence[CustomerFile],
    locate: Locate,
    *,
    warnings: bool = True,
    today: dt.date | None = None,
) -> Iterator[Finding]:
    """Every finding; without ``warnings`` some of those are left out, which take as long as all errors. Keys that are
    over ``today`` are warned of.
    """
    yield from _fleets(fleet)
    yield from _steps("defaults", ("defaults", "fallback"), defaults.fallback, fleet)
    taken = _Taken(base_models=frozenset(one.base_model for one in fleet.fleets.values()))
    for index, customer in enumerate(customers):
        yield from _customer(index, customer, fleet, taken, locate)
        yield from _steps(index, ("fallback",), customer.fallback, fleet)
        if warnings:
            yield from _rules(index, customer, defaults, fleet, locate)
        if today is not None:
            yield from _expired(index, "api_keys", customer.keys, today, "nobody can ask with this key")
    if today is not None:
        yield from _expired("fleet", "admin_tokens", fleet.admin_tokens, today, "this token opens nothing")
    if warnings:
        yield from _pools(fleet, Counter(in_fleets(customers, fleet)))
    yield from _admin_tokens(fleet, taken, locate)
    for index, customer in enumerate(customers):
        yield from _aliases(index, customer, taken, locate)


def crosscheck_general(
    fleet: FleetFile, defaults: Rules, adapters: Mapping[str, int], today: dt.date | None = None
) -> Iterator[Finding]:
    """What :func:`crosscheck` finds where nothing is to be said of customers. ``adapters``: how many each fleet has."""
    if today is not None:
        yield from _expired("fleet", "admin_tokens", fleet.admin_tokens, today, "this token opens nothing")
    yield from _fleets(fleet)
    yield from _steps("defaults", ("defaults", "fallback"), defaults.fallback, fleet)
    yield from _pools(fleet, adapters)
    yield from _admin_tokens(fleet, _Taken(frozenset()), lambda index, at: "")


def crosscheck_rules(fleet: FleetFile, defaults: Rules, rules: Rules) -> Iterator[Finding]:
    """What is to be said of a customer's rules, whosever they are."""
    yield from _steps(0, ("fallback",), rules.fallback, fleet)
    yield from _rules(0, rules, defaults, fleet, lambda part, at: "")


def crosscheck_own(fleet: FleetFile, *customers: Own) -> Iterator[Finding]:
    """What is to be said of the rest of customers, whoever else there is."""
    taken = _Taken(base_models=frozenset(one.base_model for one in fleet.fleets.values()))
    for index, customer in enumerate(customers):
        yield from _customer(index, customer, fleet, taken, by_name(customers))
    for index, customer in enumerate(customers):
        yield from _aliases(index, customer, taken, by_name(customers))


def in_fleets(customers: Iterable[Customer], fleet: FleetFile) -> Iterator[str]:
    """The fleet of each adapter; an empty name where none is written and there are several."""
    only = next(iter(fleet.fleets)) if len(fleet.fleets) == 1 else ""
    for customer in customers:
        yield from repeat(customer.fleet or only, len(customer.adapters))


def _fleets(fleet: FleetFile) -> Iterator[Finding]:
    boxes: dict[str, Location] = {}
    urls: dict[str, Location] = {}
    for fleet_name, one in fleet.fleets.items():
        for box_name, box in one.boxes.items():
            at: Location = ("fleets", fleet_name, "boxes", box_name)
            if (first := boxes.setdefault(box_name, at)) != at:
                yield Finding(
                    "fleet", at, "this box's name is taken", f"by {key_path(first)}; names are unique over all fleets"
                )
            if (first := urls.setdefault(box.url.rstrip("/"), at)) != at:
                yield Finding("fleet", (*at, "url"), "this box has the address of another", f"of {key_path(first)}")
            if box.cpu_pool < box.max_loras:
                message = f"is less than max_loras ({box.max_loras}), which vLLM refuses"
                yield Finding("fleet", (*at, "max_cpu_loras"), message, given=(("fleet", (*at, "max_loras")),))
            if box.url.rstrip("/").endswith("/v1"):
                yield Finding("fleet", (*at, "url"), "ends in /v1, which is added to it", "leave /v1 out", "warning")
            yield from engine_findings(fleet_name, one, box_name, box)
        if one.sync is not None and one.sync.watch and one.adapter_root is None:
            at = ("fleets", fleet_name, "sync")
            message, needs = "watches, and nothing says where adapters lie", ("fleets", fleet_name, "adapter_root")
            yield Finding("fleet", at, message, "write adapter_root", "warning", (("fleet", needs),))


def _pools(fleet: FleetFile, named: Mapping[str, int]) -> Iterator[Finding]:
    """Pools that do not hold what may be asked for: what one drops is read from disk inside of the engine's step."""
    for fleet_name, one in fleet.fleets.items():
        for box_name, box in one.boxes.items():
            # Without the key, `failsoft backend` makes the pool as large as is needed.
            if box.max_cpu_loras is not None and box.max_cpu_loras < named.get(fleet_name, 0):
                yield Finding(
                    "fleet",
                    ("fleets", fleet_name, "boxes", box_name, "max_cpu_loras"),
                    f"is less than the {named.get(fleet_name, 0)} adapters that this fleet's policies name",
                    "vLLM reads one that it has dropped from disk while all others wait, and ends if it cannot",
                    "warning",
                )


def _admin_tokens(fleet: FleetFile, taken: _Taken, locate: Locate) -> Iterator[Finding]:
    names: dict[str, Location] = {}
    digests: dict[str, Location] = {}
    for i, token in enumerate(fleet.admin_tokens):
        at: Location = ("admin_tokens", i)
        if token.name == FROM_ENVIRONMENT:
            yield Finding(
                "fleet", (*at, "name"), f"{FROM_ENVIRONMENT} is what the gateway's own FAILSOFT_ADMIN_TOKEN is called"
            )
        if (first := names.setdefault(token.name, at)) != at:
            yield Finding("fleet", (*at, "name"), "this token's name is taken", f"by {key_path(first)}")
        if (first := digests.setdefault(token.sha256, at)) != at:
            yield Finding("fleet", (*at, "sha256"), "this token is there twice", f"first at {key_path(first)}")
        if (customer := taken.digests.get(token.sha256)) is not None:
            yield Finding("fleet", (*at, "sha256"), "this is a customer's API key", f"at {locate(*customer)}")


def _steps(part: Part, at: Location, steps: list[Step] | None, fleet: FleetFile) -> Iterator[Finding]:
    for index, step in enumerate(steps or ()):
        if isinstance(step, ProviderStep) and step.provider not in fleet.providers:
            hint = meant(step.provider, fleet.providers, noun="provider in fleet.yaml")
            needs: Place = ("fleet", ("providers", step.provider))
            yield Finding(part, (*at, index, "provider"), f"there is no provider {step.provider}", hint, given=(needs,))


def _customer(index: int, customer: Own, fleet: FleetFile, taken: _Taken, locate: Locate) -> Iterator[Finding]:
    first = taken.customers.setdefault(customer.customer, (index, ("customer",)))
    if first[0] != index:
        yield Finding(
            index, ("customer",), f"customer {customer.customer} is there twice", f"first at {locate(*first)}"
        )
    if customer.fleet is None and len(fleet.fleets) > 1:
        yield Finding(
            index, ("fleet",), "is missing, and there is more than one", f"known: {', '.join(sorted(fleet.fleets))}"
        )
    elif customer.fleet is not None and customer.fleet not in fleet.fleets:
        hint = meant(customer.fleet, fleet.fleets, noun="fleet in fleet.yaml")
        needs: Place = ("fleet", ("fleets", customer.fleet))
        yield Finding(index, ("fleet",), f"there is no fleet {customer.fleet}", hint, given=(needs,))
    for i, adapter in enumerate(customer.adapters):
        at: Location = ("adapters", i)
        place = index, at
        if adapter in taken.base_models:
            yield Finding(index, at, f"{adapter} is the name of a base model, not of an adapter")
        if (first := taken.adapters.setdefault(adapter, place)) is not place:
            yield Finding(
                index, at, f"adapter {adapter} is taken", f"at {locate(*first)}; an adapter belongs to one customer"
            )
    for i, digest in enumerate(customer.digests):
        at = ("api_keys", i)
        place = index, at
        if (first := taken.digests.setdefault(digest, place)) is not place:
            yield Finding(index, at, "this API key is taken", f"at {locate(*first)}; a key belongs to one customer")
    if not customer.adapters:
        yield Finding(index, ("adapters",), "names no adapter: there is nothing to ask for", "", "warning")
    if not customer.api_keys:
        yield Finding(index, ("api_keys",), "holds no key: nobody can ask", "", "warning")


def _aliases(index: int, customer: Own, taken: _Taken, locate: Locate) -> Iterator[Finding]:
    for alias, target in customer.aliases.items():
        at: Location = ("aliases", alias)
        if alias in taken.base_models:
            yield Finding(index, at, f"{alias} is the name of a base model")
        if (first := taken.adapters.get(alias)) is not None:
            yield Finding(index, at, f"{alias} is the name of an adapter", f"at {locate(*first)}")
        weights = {target: 1} if isinstance(target, str) else target
        for adapter in weights:
            if adapter not in customer.adapters:
                place = at if isinstance(target, str) else (*at, adapter)
                message = f"{adapter} is not one of this customer's adapters"
                hint = meant(adapter, customer.adapters, noun="adapter of this customer")
                if adapter in customer.aliases:
                    message, hint = f"{adapter} is an alias itself", "an alias names adapters only"
                yield Finding(index, place, message, hint, given=((index, ("adapters", adapter)),))
        if not any(weights.values()):
            yield Finding(index, at, "all weights are 0", "one has to be more")


def _rules(index: int, customer: Rules, defaults: Rules, fleet: FleetFile, locate: Locate) -> Iterator[Finding]:
    rules = effective(defaults, customer, fleet.providers)

    def place(*keys: str) -> Place:
        """Where the first is written that the customer has, or else the defaults."""
        own = next((key for key in keys if key in customer.model_fields_set), None)
        default = next((key for key in keys if key in defaults.model_fields_set), None)
        return (index, (own,)) if own else ("defaults", ("defaults", default)) if default else (index, ())

    def warn(keys: tuple[str, ...], message: str, hint: str = "", *given: Place) -> Finding:
        """At one of ``keys``, which are those that it follows from, and ``given``."""
        needs: list[Place] = [(index, (key,)) for key in keys]
        needs += [("defaults", ("defaults", key)) for key in keys if key not in customer.model_fields_set]
        return Finding(*place(*keys), message, hint, "warning", (*needs, *given))

    def source(key: str, *keys: str) -> str:
        """Where ``key`` comes from, unless a warning about ``keys`` is just there."""
        part, at = place(key)
        return "" if (part, at) == place(*keys) else f" ({locate(part, at) if at else 'built in'})"

    if rules.dropped:
        keys = ("hosted", "fallback")
        steps = f"{rules.dropped} provider step{'s' if rules.dropped > 1 else ''}"
        message = f"hosted.allowed is false{source('hosted', *keys)}: {steps} of the fallback will not be used"
        yield warn(keys, message)
    if not rules.steps:
        hint = "a base or static step keeps every token with you"
        built_in: Location = ("providers", BUILT_IN_PROVIDER)
        yield warn(("fallback", "hosted"), "nothing answers when the boxes cannot", hint, ("fleet", built_in))
    if rules.hosted.usd_per_day is not None:
        for step in rules.steps:
            provider = fleet.providers.get(step.provider) if isinstance(step, ProviderStep) else None
            if isinstance(step, ProviderStep) and provider is not None and step_price(step, provider) is None:
                message = f"what {step.model or provider.model} costs is not known: it is not asked under a cap"
                hint = f"write price for providers.{step.provider} in fleet.yaml"
                yield warn(("hosted", "fallback"), message, hint, ("fleet", ("providers", step.provider)))
    default = defaults.hosted
    own = customer.hosted
    if own is not None and "allowed" not in own.model_fields_set and default is not None and not default.allowed:
        message = "replaces the default's hosted whole, so that hosted providers are allowed here"
        yield warn(("hosted",), message, "write allowed: true or false here", ("defaults", ("defaults", "hosted")))
    if rules.drill_every_s is not None and rules.drill_every_s < OFTEN_S:
        yield warn(("drills",), f"drills.every is under {OFTEN_S / 60:g}m: hosted providers bill each drill")
    if rules.drill_share and all(isinstance(step, StaticStep) for step in rules.steps):
        yield warn(("drills", "fallback"), "drills.share has no effect: no step of the fallback asks anybody")
    for key, value_s in (("ttft_budget", rules.ttft_budget_s), ("plain_budget", rules.plain_budget_s)):
        if value_s >= rules.deadline_s and rules.steps:
            budget = f"{key} is {format_duration(value_s)}{source(key, key, 'deadline')}"
            deadline = f"{format_duration(rules.deadline_s)}{source('deadline', key, 'deadline')}"
            message = f"{budget}, not shorter than the deadline of {deadline}: no time is left for the fallback"
            yield warn((key, "deadline"), message)


def _expired(
    part: Part, at: str, keys: Iterable[KnownKey | AdminToken], today: dt.date, what: str
) -> Iterator[Finding]:
    for i, key in enumerate(keys):
        if key.expires is not None and key.expires < today:
            message = f"is over since {key.expires}: {what}"
            yield Finding(part, (at, i, "expires"), message, "take it out, or write a later day", "warning")
