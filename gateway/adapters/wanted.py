"""What boxes are to have, by the policies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.compiled import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Wanted:
    """An adapter that a policy names. ``path``: where it lies on the boxes; None: nothing says so."""

    name: str
    path: str | None
    customer: str


@dataclass(frozen=True, slots=True)
class Former:
    """An adapter that an earlier version of the policies named, and since when none does, in Unix time."""

    customer: str
    since_s: float


def wanted_of(policy: CompiledPolicy, fleet: str) -> dict[str, Wanted]:
    """All adapters of one fleet, by name, in the order of their names."""
    spec = policy.fleets[fleet]
    owners = {
        adapter: customer.name
        for customer in policy.customers.values()
        if customer.fleet.name == fleet
        for adapter in customer.adapters
    }
    return {name: Wanted(name, spec.path_of(name), owners[name]) for name in sorted(owners)}


def dropped(before: Mapping[str, Wanted], after: Mapping[str, Wanted], now_s: float) -> dict[str, Former]:
    """What ``before`` named and ``after`` does not, from now on."""
    return {name: Former(one.customer, now_s) for name, one in before.items() if name not in after}
