"""What policies come to in effect: each key with its value, whether it was written, a default or built in. Pure.

Two sets of policies with equal effects have gateways do the same. Keys and values are as YAML has them, such as
``drills.every`` and ``24h``, and come from the models, so that one that is new there is here too. None: not set.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from math import gcd
from typing import Any

from pydantic import BaseModel

from gateway.policy import models
from gateway.policy.durations import format_duration, format_every
from gateway.policy.effective import Effective, effective
from gateway.policy.engine_options import EngineOptions
from gateway.policy.shares import format_share

_TOLD_APART = frozenset({"limits", "hosted", "steps", "dropped", "drill_every_s", "drill_share"})
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
        hosted=as_written(rules.hosted),
        steps=tuple(_step(step, fleet.providers) for step in rules.steps),
        limits=as_written(rules.limits),
        rules=dict(_rules(rules)),
        other=as_written(customer, but=models.Rules.model_fields.keys() | _OWN_FIELDS),
    )


def _rules(rules: Effective) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(Effective):
        value = getattr(rules, field.name)
        if field.name.endswith("_s") and field.name not in _TOLD_APART:
            yield field.name.removesuffix("_s"), format_duration(value)
        elif field.name not in _TOLD_APART:
            yield field.name, value
    yield "drills.every", format_every(math.inf if rules.drill_every_s is None else rules.drill_every_s)
    yield "drills.share", format_share(rules.drill_share) if rules.drill_share else None


def fleet_effect(fleet: models.Fleet) -> FleetEffect:
    """What holds for a fleet and its boxes."""
    filled = {"sync": fleet.sync or models.Sync(), "engine": fleet.engine or EngineOptions()}
    keys = as_written(fleet.model_copy(update=filled), but={"boxes"})
    return FleetEffect(keys, {name: _box(box) for name, box in fleet.boxes.items()})


def _box(box: models.Box) -> Mapping[str, Any]:
    values = as_written(box.model_copy(update={"max_cpu_loras": box.cpu_pool}), but={"engine"})
    # Of what a box does not say its fleet decides, and so not of what it says is empty.
    options = box.engine.model_dump(mode="json", exclude_unset=True) if box.engine is not None else {}
    return values | dict(_flat({key: [] if value == {} else value for key, value in options.items()}, "engine."))


def provider_effect(provider: models.Provider) -> Mapping[str, Any]:
    """What holds for a provider."""
    price = provider.price
    if price is not None and price.cached_input_per_million is None:
        cached = price.model_copy(update={"cached_input_per_million": price.input_per_million})
        provider = provider.model_copy(update={"price": cached})
    return as_written(provider)


def other_effect(fleet: models.FleetFile) -> Mapping[str, Any]:
    """What the fleet's file says besides fleets, providers and admin tokens."""
    return as_written(fleet, but={"fleets", "providers", "admin_tokens"})


def as_written(model: BaseModel, but: Set[str] = frozenset()) -> dict[str, Any]:
    """All that ``model`` says and what it leaves out, by the path of each key, without those of ``but``."""
    names = type(model).model_fields.keys() - but
    return dict(_flat(model.model_dump(mode="json", include=names), "")) if names else {}


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _weights(target: str | Mapping[str, int]) -> Mapping[str, int]:
    weights = {target: 1} if isinstance(target, str) else {name: weight for name, weight in target.items() if weight}
    divisor = gcd(*weights.values()) or 1
    return {name: weight // divisor for name, weight in weights.items()}


def _step(step: models.Step, providers: Mapping[str, models.Provider]) -> StepEffect:
    values = as_written(step)
    if isinstance(step, models.ProviderStep):
        values["model"] = step.model or providers[step.provider].model
        values["drop"] = sorted(set(step.drop))
        return StepEffect("provider", values.pop("provider"), values)
    return StepEffect("base" if isinstance(step, models.BaseStep) else "static", None, values)
