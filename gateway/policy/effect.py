"""What policies come to in effect: each key with its value, whether it was written, a default or built in. Pure.

Two sets of policies with equal effects have gateways do the same. Keys are those of the models, so that one that is new
there is here too.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

from pydantic import BaseModel

from gateway.policy import models
from gateway.policy.effective import Effective, effective

_TOLD_APART = frozenset({"limits", "hosted", "steps", "dropped"})
_OWN_FIELDS = frozenset({"customer", "fleet", "api_keys", "adapters", "aliases"})


@dataclass(frozen=True, slots=True)
class StepEffect:
    """One fallback step. ``details``: all but its kind, by key; of a provider with the model that is really asked."""

    kind: str
    provider: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CustomerEffect:
    """One customer. ``keys``: name and expiry by digest; ``aliases``: the least whole weights by adapter.

    ``rules`` are the budgets and the like, ``other`` what only a customer's file can say.
    """

    fleet: str
    adapters: frozenset[str]
    aliases: Mapping[str, Mapping[str, int]]
    keys: Mapping[str, tuple[str | None, dt.date | None]]
    hosted: Mapping[str, Any]
    steps: tuple[StepEffect, ...]
    limits: Mapping[str, Any]
    rules: Mapping[str, Any]
    other: Mapping[str, Any]

    @property
    def providers(self) -> frozenset[str]:
        """Those that its fallback asks."""
        return frozenset(step.provider for step in self.steps if step.provider is not None)


@dataclass(frozen=True, slots=True)
class FleetEffect:
    """``keys``: of the fleet itself; ``boxes``: those of each box, by name. The order of boxes is none."""

    keys: Mapping[str, Any]
    boxes: Mapping[str, Mapping[str, Any]]


def customer_effect(customer: models.CustomerFile, defaults: models.Rules, fleet: models.FleetFile) -> CustomerEffect:
    """What holds for ``customer``."""
    rules = effective(defaults, customer, fleet.providers)
    return CustomerEffect(
        fleet=customer.fleet if customer.fleet is not None else next(iter(fleet.fleets)),
        adapters=frozenset(customer.adapters),
        aliases={alias: _weights(target) for alias, target in customer.aliases.items()},
        keys={key.sha256: (key.name, key.expires) for key in customer.keys},
        hosted=_values(rules.hosted),
        steps=tuple(_step(step, fleet.providers) for step in rules.steps),
        limits=_values(rules.limits),
        rules={
            field.name: getattr(rules, field.name)
            for field in dataclasses.fields(Effective)
            if field.name not in _TOLD_APART
        },
        other={
            name: getattr(customer, name)
            for name in models.CustomerFile.model_fields.keys() - models.Rules.model_fields.keys() - _OWN_FIELDS
        },
    )


def fleet_effect(fleet: models.Fleet) -> FleetEffect:
    """What holds for a fleet and its boxes."""
    boxes = {name: {**_values(box), "max_cpu_loras": box.cpu_pool} for name, box in fleet.boxes.items()}
    return FleetEffect({key: value for key, value in _values(fleet).items() if key != "boxes"}, boxes)


def provider_effect(provider: models.Provider) -> Mapping[str, Any]:
    """What holds for a provider."""
    return _values(provider)


def other_effect(fleet: models.FleetFile) -> Mapping[str, Any]:
    """What the fleet's file says besides fleets and providers."""
    return {key: value for key, value in _values(fleet).items() if key not in ("fleets", "providers")}


def _values(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _weights(target: str | Mapping[str, int]) -> Mapping[str, int]:
    weights = {target: 1} if isinstance(target, str) else {name: weight for name, weight in target.items() if weight}
    divisor = gcd(*weights.values()) or 1
    return {name: weight // divisor for name, weight in weights.items()}


def _step(step: models.Step, providers: Mapping[str, models.Provider]) -> StepEffect:
    values = _values(step)
    if isinstance(step, models.ProviderStep):
        values["model"] = step.model or providers[step.provider].model
        values["drop"] = frozenset(step.drop)
        return StepEffect("provider", values.pop("provider"), values)
    if isinstance(step, models.BaseStep):
        return StepEffect("base", None, values)
    return StepEffect("static", None, values)
