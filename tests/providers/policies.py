"""Compiled policies for tests, without YAML."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, FleetSpec, ProviderSpec, ProviderStep, Step


def provider(
    model: str = "openai/gpt-4o-mini",
    *,
    name: str = "hosted",
    api_base: str | None = None,
    api_key: str | None = "sk-provider-1",
    unavailable: str | None = None,
) -> ProviderSpec:
    return ProviderSpec(name, model, api_base, api_key, unavailable)


def step(model: str = "openai/gpt-4o-mini", *, api_base: str | None = None) -> ProviderStep:
    return ProviderStep(provider(model, api_base=api_base), model)


def compiled(*steps: Step) -> CompiledPolicy:
    """A policy with one customer, whose fallback is ``steps``."""
    fleet = FleetSpec("main", "base", ())
    customer = CustomerPolicy("acme", fleet, frozenset({"acme_v1"}), steps, 2.0, 30.0, 60.0, 10.0, "resume")
    providers = {one.provider.name: one.provider for one in steps if isinstance(one, ProviderStep)}
    return CompiledPolicy(1, "store", 0, {"main": fleet}, providers, {"acme": customer}, {})


def alarms() -> Alarms:
    return Alarms(GatewayMetrics(Registry()), Events(100))


async def until(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait for a condition that nothing signals."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
