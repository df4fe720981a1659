"""The policies of a plan: those of a folder or made up for the traffic, moved to the boxes of an option."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from backend.planner.scenario import Option
from backend.pool_size import pool_size, room_for_reloads
from backend.traffic.arrival import Arrival
from gateway.policy.alias import Alias
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import ApiKey, BoxSpec, CompiledPolicy, CustomerPolicy, FleetSpec, ProviderStep, Step
from gateway.policy.models import Box, CustomerFile, DefaultsFile, Fleet, FleetFile, Provider
from gateway.policy.policy_set import PolicySet

FLEET = "main"
HOSTED = "hosted"
HOSTED_MODEL = "openai/gpt-4o-mini"
"""The provider behind policies that are made up, for its price."""


class PlanError(ValueError):
    """The traffic and the policies do not go together; the message says why."""


def made_up(arrivals: Iterable[Arrival]) -> CompiledPolicy:
    """Policies with the built-in defaults for everybody in a traffic: one fleet, and one hosted provider behind it."""
    models: dict[str, dict[str, None]] = {}
    for one in arrivals:
        models.setdefault(one.customer, {})[one.model] = None
    digest = "sha256:" + "0" * 64
    customers = [
        CustomerFile(customer=name, api_keys=[f"{digest[:-8]}{number:08x}"], adapters=list(adapters))
        for number, (name, adapters) in enumerate(sorted(models.items()))
    ]
    boxes = {"box-1": Box(url="http://box-1:8000")}
    fleet = FleetFile(
        fleets={FLEET: Fleet(base_model="base", boxes=boxes)}, providers={HOSTED: Provider(model=HOSTED_MODEL)}
    )
    policies = PolicySet(fleet=fleet, defaults=DefaultsFile().defaults, customers=tuple(customers))
    return compiled(policies)


def compiled(policies: PolicySet) -> CompiledPolicy:
    """A set of policies as the request path reads it, without secrets. Raises PolicyError."""
    return compile_policy(policies, version=1, store_id="plan", created_s=0, env=None)


def known_models(policy: CompiledPolicy) -> dict[str, str]:
    """By customer the model that it asks for where the traffic does not say: its first alias or else its adapter."""
    return {
        name: next(iter(customer.aliases), None) or min(customer.adapters)
        for name, customer in policy.customers.items()
        if customer.adapters
    }


def fleet_of(policy: CompiledPolicy, arrivals: Iterable[Arrival]) -> FleetSpec:
    """The one fleet that the traffic asks. Raises PlanError where it asks for what no policy has, or several fleets."""
    fleets: dict[str, FleetSpec] = {}
    for customer, model in {(one.customer, one.model) for one in arrivals}:
        found = policy.customers.get(customer)
        if found is None:
            raise PlanError(f"{customer} is in the traffic, and not in the policies")
        if model not in found.adapters and model not in found.aliases:
            raise PlanError(f"{customer} asks for {model}, which is none of its adapters or aliases")
        fleets[found.fleet.name] = found.fleet
    if not fleets:
        raise PlanError("nobody asks for anything")
    if len(fleets) > 1:
        raise PlanError(f"the traffic asks {len(fleets)} fleets ({', '.join(sorted(fleets))}): plan one at a time")
    return next(iter(fleets.values()))


def key_of(customer: str) -> str:
    """The API key by which a customer of a plan asks."""
    return f"fs-plan-{customer}"


def moved(
    policy: CompiledPolicy, fleet: FleetSpec, option: Option, box_urls: Mapping[str, str], provider_url: str
) -> CompiledPolicy:
    """``policy`` with the boxes of ``option`` in place of ``fleet``'s own, and one stand-in for all providers."""
    pool = cpu_pool(policy, fleet, option)
    boxes = tuple(BoxSpec(name, fleet.name, url, option.slots, pool) for name, url in box_urls.items())
    new_fleet = replace(fleet, boxes=boxes)
    providers = {
        name: replace(one, model=_spoken(one.model), api_base=f"{provider_url}/v1", api_key="plan", unavailable=None)
        for name, one in policy.providers.items()
    }

    def step(one: Step) -> Step:
        if not isinstance(one, ProviderStep):
            return one
        return replace(one, provider=providers[one.provider.name], model=_spoken(one.model))

    customers: dict[str, CustomerPolicy] = {}
    keys: dict[bytes, ApiKey] = {}
    for name, one in policy.customers.items():
        if one.fleet.name != fleet.name:
            continue
        customers[name] = replace(one, fleet=new_fleet, steps=tuple(map(step, one.steps)))
        digest = hashlib.sha256(key_of(name).encode()).digest()
        keys[digest] = ApiKey(digest, customers[name])
    return replace(policy, fleets={fleet.name: new_fleet}, providers=providers, customers=customers, keys=keys)


def cpu_pool(policy: CompiledPolicy, fleet: FleetSpec, option: Option) -> int:
    """Adapters in main memory of each box, as ``failsoft backend`` would size it."""
    adapters = len(adapters_of(policy, fleet))
    room = room_for_reloads(adapters, None)
    return pool_size(adapters, max_loras=option.slots, room=room, given=None)


def adapters_of(policy: CompiledPolicy, fleet: FleetSpec) -> list[str]:
    """All adapters that live in a fleet, by name."""
    return sorted({a for one in policy.customers.values() if one.fleet.name == fleet.name for a in one.adapters})


def with_twins(policy: CompiledPolicy, times: int) -> CompiledPolicy:
    """Every customer ``times`` times: each twin with adapters, aliases and limits of its own."""
    customers = dict(policy.customers)
    for one in policy.customers.values():
        for number in range(1, times):
            name = twin(one.name, number)
            aliases = {
                twin(alias, number): Alias.of(
                    name, twin(alias, number), {twin(to, number): weight for to, weight in found.weights.items()}
                )
                for alias, found in one.aliases.items()
            }
            adapters = frozenset(twin(adapter, number) for adapter in one.adapters)
            customers[name] = replace(one, name=name, adapters=adapters, aliases=aliases)
    return replace(policy, customers=customers)


def twin(name: str, number: int) -> str:
    """What the ``number``-th twin of a customer or of a model is called; the 0th is itself."""
    return f"{name}.x{number}" if number else name


def _spoken(model: str) -> str:
    """The same model over OpenAI's protocol, which the stand-in speaks."""
    return model if model.startswith("openai/") else f"openai/{model}"
