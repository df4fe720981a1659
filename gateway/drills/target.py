"""What has to be proven: every distinct way to fall back that the policies have, however many customers share it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from gateway.policy.compiled import BaseStep, CompiledPolicy, CustomerPolicy, ProviderStep

Drillable = ProviderStep | BaseStep

_Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """``customer`` is one of ``customers``, all of which are ``payers``; ``every_s`` None: only when it is asked for.

    ``name`` is ``provider:NAME``, or ``base:FLEET``, and stands for people and in metrics.
    """

    key: str
    name: str
    step: Drillable
    customer: CustomerPolicy
    customers: tuple[str, ...]
    every_s: float | None
    payers: tuple[CustomerPolicy, ...] = ()


def key_of(customer: CustomerPolicy, step: Drillable) -> str:
    """Under which a step's proof is kept: the same for all customers to whom the very same would be sent.

    A key changes with whatever could make the proof worth nothing: address, model, prompt, dropped fields. What the
    provider's API key is, each gateway knows for itself.
    """
    return _digest(_identity(customer, step))


def targets_of(compiled: CompiledPolicy) -> Mapping[str, Target]:
    """All of a policy's, by key."""
    found: dict[_Identity, list[tuple[CustomerPolicy, Drillable]]] = {}
    for customer in compiled.customers.values():
        for step in dict.fromkeys(customer.drillable):
            found.setdefault(_identity(customer, step), []).append((customer, step))
    targets = (_target(_digest(identity), users) for identity, users in found.items())
    return {target.key: target for target in targets}


def name_of(customer: CustomerPolicy, step: Drillable) -> str:
    """What people call it."""
    return f"provider:{step.provider.name}" if isinstance(step, ProviderStep) else f"base:{customer.fleet.name}"


def _target(key: str, users: list[tuple[CustomerPolicy, Drillable]]) -> Target:
    customer, step = users[0]
    schedules = [one.drill_every_s for one, _ in users if one.drill_every_s is not None]
    return Target(
        key=key,
        name=name_of(customer, step),
        step=step,
        customer=customer,
        customers=tuple(sorted(one.name for one, _ in users)),
        every_s=min(schedules, default=None),
        payers=tuple(one for one, _ in users),
    )


def _identity(customer: CustomerPolicy, step: Drillable) -> _Identity:
    if isinstance(step, ProviderStep):
        provider = step.provider
        return "provider", provider.name, provider.api_base, step.model, step.system_prompt, *sorted(step.drop)
    return "base", customer.fleet.name, customer.fleet.base_model


def _digest(identity: _Identity) -> str:
    return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:24]
