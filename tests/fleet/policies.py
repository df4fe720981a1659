"""Compiled policies for the fleet's tests, without YAML."""

from __future__ import annotations

from gateway.policy.compiled import BoxSpec, CompiledPolicy, CustomerPolicy, FleetSpec


def compiled(*specs: BoxSpec, base_model: str = "base", adapters: tuple[str, ...] = ("acme_v3",)) -> CompiledPolicy:
    """One fleet ``main`` of ``specs`` and one customer with ``adapters``."""
    fleet = FleetSpec("main", base_model, specs)
    acme = CustomerPolicy(
        name="acme",
        fleet=fleet,
        adapters=frozenset(adapters),
        steps=(),
        ttft_budget_s=2,
        plain_budget_s=30,
        deadline_s=60,
        stall_timeout_s=10,
        on_broken_stream="resume",
    )
    return CompiledPolicy(
        version=1,
        store_id="s",
        created_s=0,
        fleets={"main": fleet},
        providers={},
        customers={"acme": acme},
        keys={},
    )
