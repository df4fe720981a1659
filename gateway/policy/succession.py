"""What an alias stood for before: pure. Who takes v3 out of the policies and puts v4 in means v4, and not an outage
until boxes have it; so for as long as boxes lack v4 the alias is answered by v3, which is on them still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.policy.alias import Alias
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy

MOST = 2
"""Of the three attempts at own adapters that a request has, one is for what the alias stands for."""


def with_predecessors(policy: CompiledPolicy, before: CompiledPolicy | None) -> CompiledPolicy:
    """``policy``, its aliases with what they stood for in ``before``, the version that was in force until now.

    Not with an adapter that the alias names still, where weight 0 takes it out, nor with one that is another customer's
    now. Only within one fleet, as other boxes serve another base.
    """
    if before is None:
        return policy
    changed: dict[str, CustomerPolicy] = {}
    owners: dict[str, str] | None = None
    for name, customer in policy.customers.items():
        was = before.customers.get(name)
        if was is None or not customer.aliases or was.fleet.name != customer.fleet.name:
            continue
        if was.aliases == customer.aliases and not any(alias.predecessors for alias in was.aliases.values()):
            continue
        if owners is None:
            owners = {adapter: one.name for one in policy.customers.values() for adapter in one.adapters}
        aliases = {alias.name: _succeeding(alias, was.aliases, owners) for alias in customer.aliases.values()}
        if aliases != customer.aliases:
            changed[name] = replace(customer, aliases=aliases)
    if not changed:
        return policy
    keys = {
        digest: replace(key, customer=changed[key.customer.name]) if key.customer.name in changed else key
        for digest, key in policy.keys.items()
    }
    return replace(policy, customers={**policy.customers, **changed}, keys=keys)


def _succeeding(alias: Alias, before: Mapping[str, Alias], owners: Mapping[str, str]) -> Alias:
    was = before.get(alias.name)
    if was is None:
        return alias
    stood_for = sorted((name for name, weight in was.weights.items() if weight), key=lambda name: -was.weights[name])
    left = [
        name
        for name in dict.fromkeys((*stood_for, *was.predecessors))
        if name not in alias.weights and owners.get(name, alias.customer) == alias.customer
    ]
    return replace(alias, predecessors=tuple(left[:MOST]))
