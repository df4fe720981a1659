"""What one set of policies would change for whom, beside another: in words. Pure.

Compared is what is in effect, with defaults and built-in values filled in: a comment, an order, or a value that is
written out and held anyway, is no difference. There are words exactly where there is one: a key without words of its
own gets general ones, so that a new key of the models is never passed over.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.policy import effect_words
from gateway.policy.admin_token_words import token_words
from gateway.policy.effect import CustomerEffect, customer_effect, fleet_effect, other_effect, provider_effect
from gateway.policy.effect_words import changed, listed, shown
from gateway.policy.models import CustomerFile, FleetFile, Rules
from gateway.policy.policy_set import PolicySet

Kind = Literal["policies", "admin token", "fleet", "box", "provider", "customer"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changes: ``name`` says for whom, ``words`` what."""

    kind: Kind
    name: str
    words: str

    @property
    def subject(self) -> str:
        """As a line begins: customers by their name alone."""
        return self.name if self.kind == "customer" else f"{self.kind} {self.name}".strip()


def difference(before: PolicySet | None, after: PolicySet, *, today: dt.date | None = None) -> tuple[Change, ...]:
    """Every change, customers last and by name. ``before`` None: there were no policies. Empty where none is.

    ``today``: where given, of a key that is over then that is said.
    """
    return tuple(_changes(before, after, today))


def _changes(before: PolicySet | None, after: PolicySet, today: dt.date | None) -> Iterator[Change]:
    old_fleet = before.fleet if before is not None else None
    old_defaults = before.defaults if before is not None else Rules()
    old_customers = {one.customer: one for one in before.customers} if before is not None else {}
    new_customers = {one.customer: one for one in after.customers}
    if old_fleet is not None:
        for key, old, new in _pairs(other_effect(old_fleet), other_effect(after.fleet)):
            yield Change("policies", "", changed(key, old, new))
    for token, words in token_words(old_fleet.admin_tokens if old_fleet else (), after.fleet.admin_tokens, today):
        yield Change("admin token", token, words)
    yield from _fleets(old_fleet, after.fleet)
    yield from _providers(old_fleet, after.fleet, after)
    same_frame = old_fleet == after.fleet and old_defaults == after.defaults
    for name in sorted(old_customers.keys() | new_customers.keys()):
        old_customer, new_customer = old_customers.get(name), new_customers.get(name)
        if same_frame and old_customer == new_customer:
            continue
        for words in _customer(_effect(before, old_customer), _effect(after, new_customer), today):
            yield Change("customer", name, words)


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each key with its two values, where they are not the same. None: not there."""
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _fleets(before: FleetFile | None, after: FleetFile) -> Iterator[Change]:
    old_fleets = before.fleets if before is not None else {}
    for name, old, new in _pairs(
        {name: fleet_effect(fleet) for name, fleet in old_fleets.items()},
        {name: fleet_effect(fleet) for name, fleet in after.fleets.items()},
    ):
        if new is None:
            yield Change("fleet", name, "is removed")
        elif old is None:
            boxes = listed("box", list(new.boxes), "boxes")
            yield Change("fleet", name, f"is new, with {boxes} that serve {after.fleets[name].base_model}")
        else:
            for key, was, now in _pairs(old.keys, new.keys):
                yield Change("fleet", name, changed(key, was, now))
            for box, was, now in _pairs(old.boxes, new.boxes):
                if now is None:
                    yield Change("fleet", name, f"box {box} is removed")
                elif was is None:
                    yield Change("fleet", name, f"box {box} is added, at {now['url']}")
                else:
                    for key, one, other in _pairs(was, now):
                        none = "as the fleet's" if key.startswith("engine.") else "not set"
                        yield Change("box", box, changed(key, one, other, none))


def _providers(before: FleetFile | None, after: FleetFile, policies: PolicySet) -> Iterator[Change]:
    old_providers = before.providers if before is not None else {}
    for name, old, new in _pairs(
        {name: provider_effect(provider) for name, provider in old_providers.items()},
        {name: provider_effect(provider) for name, provider in after.providers.items()},
    ):
        if new is None:
            yield Change("provider", name, "is removed")
        elif old is None:
            yield Change("provider", name, f"is new, and asked for {new['model']}")
        else:
            asking = [
                one.customer
                for one in policies.customers
                if (effect := _effect(policies, one)) is not None and name in effect.providers
            ]
            who = f" (asked by {effect_words.named(asking)})" if asking else " (nobody asks it)"
            for key, was, now in _pairs(old, new):
                none = "from LiteLLM's price map" if key.startswith("price.") else "not set"
                yield Change("provider", name, changed(key, was, now, none) + who)


def _effect(policies: PolicySet | None, customer: CustomerFile | None) -> CustomerEffect | None:
    if policies is None or customer is None:
        return None
    return customer_effect(customer, policies.defaults, policies.fleet)


def _customer(old: CustomerEffect | None, new: CustomerEffect | None, today: dt.date | None) -> Iterator[str]:
    if new is None and old is not None:
        what = f"{listed('key', None, 'keys', len(old.keys))} and {listed('adapter', list(old.adapters), 'adapters')}"
        yield f"is removed: {what} are no longer known"
    elif old is None and new is not None:
        about = [listed("adapter", list(new.adapters), "adapters"), listed("key", None, "keys", len(new.keys))]
        about += [] if new.hosted["allowed"] else ["may not reach hosted providers"]
        yield f"new customer: {', '.join(about)}"
    elif old is not None and new is not None:
        for field in dataclasses.fields(CustomerEffect):
            was, now = getattr(old, field.name), getattr(new, field.name)
            if was == now or field.name == "providers":
                continue
            if field.name == "keys":
                yield from effect_words.keys(was, now, today)
            elif (words := WORDS.get(field.name)) is not None:
                yield from words(was, now)
            else:
                yield changed(field.name, was, now)


def _keys_of(prefix: str, none: str) -> Callable[[Any, Any], Iterator[str]]:
    """Words for a mapping of keys, each told by itself."""

    def words(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        for key, was, now in _pairs(old, new):
            yield changed(f"{prefix}{key}", was, now, none)

    return words


def _hosted(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    amount, before = (_amount(hosted["usd_per_day"]) for hosted in (new, old))
    if old["allowed"] and not new["allowed"]:
        yield "may no longer reach hosted providers"
    elif new["allowed"] and not old["allowed"]:
        yield f"may now reach hosted providers, for {amount} a day"
    elif amount != before and new["allowed"]:
        yield f"may spend {amount} a day at hosted providers (before: {before})"
    elif amount != before:
        yield f"might spend {amount} a day (before: {before}), were it allowed to reach hosted providers"
    for key, was, now in _pairs(old, new):
        if key not in ("allowed", "usd_per_day"):
            yield changed(f"hosted.{key}", was, now)


def _amount(usd: float | None) -> str:
    return "any amount" if usd is None else f"{shown(usd)} USD"


WORDS: Mapping[str, Callable[[Any, Any], Iterator[str]]] = {
    "rules": _keys_of("", "not set"),
    "limits": _keys_of("limits.", "no limit"),
    "other": _keys_of("", "not set"),
    "hosted": _hosted,
    "steps": effect_words.steps,
    "adapters": effect_words.adapters,
    "aliases": effect_words.aliases,
}
