"""The JSON documents of the control plane. They show state, never a key or its digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.alias_documents import splits
from gateway.control.order_reach import reach
from gateway.control.sources import SNAPSHOT, ControlSources
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.homes import LEAST_REQUESTS, Homes, Inhabitant
from gateway.fleet.hosted import Hosted
from gateway.fleet.provider_health import ProviderHealth
from gateway.observe.metrics import NOT_DEGRADED
from gateway.orders.order import ALL, Order
from gateway.policy.compiled import ApiKey, BaseStep, CompiledPolicy, CustomerPolicy, ProviderSpec, ProviderStep, Step
from gateway.policy.policy_alarms import SUBJECT as POLICIES
from gateway.policy.standing import Replica

READY_AFTER_S = 3.0
"""A box that does not answer its first probe keeps the gateway from being ready no longer than this (design)."""

MOST_SCORES = 50
"""Customers whose scores are in the status: those that lose most by their fallback. `/admin/scores` has all."""

Document = dict[str, Any]


def readiness(sources: ControlSources) -> tuple[bool, Document]:
    """Whether clients may be sent here, and what is still missing."""
    policy = sources.policies.current
    unprobed = [box.name for box in sources.fleets.all() if not box.probed]
    waiting_for = [] if policy is not None else ["a policy version"]
    if sources.uptime_s < READY_AFTER_S:
        waiting_for += [f"the first probe of box {name}" for name in unprobed]
    ready = not waiting_for
    return ready, {
        "ready": ready,
        "waiting_for": waiting_for,
        "unprobed_boxes": unprobed,
        "policy_version": None if policy is None else policy.version,
        "policy_source": None if policy is None else sources.policies.source,
        "policy_from_snapshot": policy is not None and sources.policies.source == SNAPSHOT,
        "policy_alarms": [alarm.kind for alarm in sources.alarms.current() if alarm.subject == POLICIES],
    }


def status(sources: ControlSources) -> Document:
    """Everything that a person on call asks first."""
    now = sources.clock()
    policy, fleets = sources.policies.current, sources.fleets
    by_box = {name: there for homes in fleets.homes.values() for name, there in homes.inhabitants().items()}
    return {
        "ready": readiness(sources)[0],
        "uptime_s": round(sources.uptime_s, 1),
        "policy": None if policy is None else _policy(policy, sources.policies.source),
        "fleets": [_fleet(name, homes, now) for name, homes in fleets.homes.items()],
        "boxes": [_box(box, fleets, by_box.get(box.name, ()), now) for box in fleets.all()],
        "adapter_sync": sources.adapters(),
        "providers": [] if policy is None else _providers(policy, sources.hosted, now),
        "orders": orders(sources),
        "drills": sources.drills.overview(),
        "scores": [] if policy is None else sources.scores.book.worst(policy.customers, MOST_SCORES),
        "alarms": [alarm.as_json() for alarm in sources.alarms.current()],
        "requests": _requests(sources),
        "aliases": [] if policy is None else splits(policy, sources.registry),
        "limits": None if policy is None or sources.accounts is None else sources.accounts.status(policy),
        "workers": sources.workers(),
        "replicas": _replicas(sources),
        "newest_event": sources.events.newest,
    }


def orders(sources: ControlSources) -> list[Document]:
    """Every degradation by order that is in force."""
    return [{**order(one.order, one.left_s), **reach(sources, one.order.target)} for one in sources.orders.standing()]


def order(one: Order, left_s: float) -> Document:
    """One of them. ``customer`` None: all. Times are Unix time, by the store's clock."""
    return {
        "customer": None if one.target == ALL else one.target,
        "reason": one.reason,
        "by": one.by,
        "user": one.user,
        "since": one.at_ms / 1000,
        "until": one.until_ms / 1000,
        "left_s": round(left_s, 1),
    }


def _replicas(sources: ControlSources) -> Document:
    """How many gateways share the boxes, and by which policy version each decides."""
    replicas = sources.fleets.replicas
    return {
        "alive": replicas.alive,
        "rank": replicas.rank,
        "gateways": [replica(one) for one in sources.gateways() if not one.is_silent],
        "silent": silent(sources),
    }


def silent(sources: ControlSources) -> list[Document]:
    """The gateways that the store does not hear and that did not say that they end: they may be alive all the same."""
    return [replica(one) for one in sources.gateways() if one.is_silent]


def replica(one: Replica) -> Document:
    """One gateway, as it last said how it stands."""
    version = None if one.in_force is None else one.in_force.version
    return {"name": one.name, "policy_version": version, "silent_s": round(one.silent_s, 1)}


def customers(policy: CompiledPolicy | None) -> Document:
    """Every customer of the policy in force."""
    if policy is None:
        return {"policy_version": None, "customers": []}
    keys: dict[str, list[ApiKey]] = {}
    for key in policy.keys.values():
        keys.setdefault(key.customer.name, []).append(key)
    return {
        "policy_version": policy.version,
        "customers": [_customer(customer, keys.get(name, [])) for name, customer in sorted(policy.customers.items())],
    }


def _policy(policy: CompiledPolicy, source: str) -> Document:
    return {
        "version": policy.version,
        "store_id": policy.store_id,
        "source": source,
        "from_snapshot": source == SNAPSHOT,
        "applied_at": policy.created_s,
        "customers": len(policy.customers),
        "warnings": list(policy.warnings),
    }


def _fleet(name: str, homes: Homes, now: float) -> Document:
    """How a fleet's adapters came by their homes. Swaps are predicted from measured rates only."""
    placement, placed_at, rates = homes.placement, homes.placed_at, homes.rates
    return {
        "name": name,
        "placed_by": "rendezvous" if placement is None else "rates",
        "placed_s_ago": None if placed_at is None else round(max(0.0, now - placed_at), 1),
        "requests_seen": round(homes.requests_seen),
        "requests_needed": round(LEAST_REQUESTS),
        "requests_per_s": None if rates is None else round(sum(rates.values()), 3),
        "predicted_swaps_per_s": None if placement is None else round(placement.swaps_per_s, 3),
    }


def box_state(box: Box, fleets: Fleets, now: float) -> Document:
    """One box as this gateway sees it at ``now``, on the clock of its breaker."""
    homes = fleets.homes.get(box.spec.fleet)
    return _box(box, fleets, () if homes is None else homes.inhabitants().get(box.name, ()), now)


def _box(box: Box, fleets: Fleets, inhabitants: Sequence[Inhabitant], now: float) -> Document:
    probe = box.last_probe
    state = box.breaker.state(now)
    reading = box.load.fresh_reading(now)
    ttft_s = box.load.estimate(None, now).ttft_s
    return {
        "name": box.name,
        "fleet": box.spec.fleet,
        "url": box.spec.url,
        "base_model": box.base_model,
        "state": "unavailable" if box.spec.unavailable is not None else state,
        "unavailable": box.spec.unavailable,
        "retry_in_s": round(max(0.0, box.breaker.retry_at - now), 3) if state != "closed" else None,
        "in_flight": box.in_flight,
        "customers_in_flight": fleets.customers_in_flight(box.name),
        "in_flight_by_adapter": dict(sorted(box.load.attempts.adapters.items())),
        "concurrency_limit": box.load.limit.limit,
        # For the base; an adapter that has to be loaded first sees more, and /admin/explain says how much.
        "ttft_estimate_s": None if ttft_s is None else round(ttft_s, 3),
        "waiting": {
            "capacity": None if reading is None else reading.waiting_capacity,
            "deferred": None if reading is None else reading.waiting_deferred,
        },
        # "of": what this gateway counts on, of "max_loras" that all have together.
        "slots": {"of": box.load.slots.slots, "max_loras": box.spec.max_loras, "held": list(box.load.slots.held)},
        "home_of": [
            {
                "adapter": one.adapter,
                # Where there are several homes, each gets as many.
                "requests_per_s": None if one.rate is None else round(one.rate, 3),
                "homes": one.homes,
                "in_slot": one.adapter in box.load.slots,
            }
            for one in inhabitants
        ],
        "drained": box.duty.drained,
        "drained_by": box.drained_by.by,
        "drained_user": box.drained_by.user,
        "in_ramp": box.duty.in_ramp(now),
        "connections": {"idle": box.pool.idle, "busy": box.pool.in_use},
        "last_error": box.last_error,
        "last_probe": None
        if probe is None
        else {
            "at": round(probe.at_s, 3),
            "outcome": probe.outcome,
            "took_ms": round(probe.took_s * 1000, 1),
            "error": probe.error,
        },
        "missing_adapters": _pairs(box.pairs.missing(), now),
        "failing_adapters": _pairs(box.pairs.failing(), now),
        "suspected_adapters": _pairs(box.pairs.suspected(), now),
    }


def _pairs(retry_at: Mapping[str, float], now: float) -> list[Document]:
    return [
        {"adapter": adapter, "retry_in_s": round(max(0.0, at - now), 3)} for adapter, at in sorted(retry_at.items())
    ]


def _providers(policy: CompiledPolicy, hosted: Hosted, now: float) -> list[Document]:
    return [_provider(provider, hosted.of(provider), now) for provider in policy.providers.values()]


def _provider(provider: ProviderSpec, health: ProviderHealth, now: float) -> Document:
    retry_at = health.retry_at
    return {
        "name": provider.name,
        "model": provider.model,
        "api_base": provider.api_base,
        "state": health.state(now) if provider.unavailable is None else "unavailable",
        "unavailable": provider.unavailable,
        "retry_in_s": None if retry_at is None else round(max(0.0, retry_at - now), 3),
        "last_error": health.last_error,
    }


def _requests(sources: ControlSources) -> Document:
    """Counts since the start: a watcher takes differences."""
    by_kind, by_reason = Counter[str](), Counter[str]()
    for (_, served_by_kind, reason), count in sources.registry.counter("failsoft_requests_total").items():
        by_kind[served_by_kind] += int(count)
        if reason != NOT_DEGRADED and served_by_kind != "none":
            by_reason[reason] += int(count)
    return {
        "answered": by_kind.total() - by_kind["none"],
        "errors": by_kind["none"],
        "degraded": by_reason.total(),
        "by_served_by": {kind: count for kind, count in sorted(by_kind.items()) if kind != "none"},
        "degraded_by_reason": dict(sorted(by_reason.items())),
    }


def _customer(customer: CustomerPolicy, keys: list[ApiKey]) -> Document:
    return {
        "name": customer.name,
        "fleet": customer.fleet.name,
        "adapters": sorted(customer.adapters),
        "aliases": {name: dict(alias.weights) for name, alias in sorted(customer.aliases.items())},
        "fallback": [_step(step) for step in customer.steps],
        "hosted_allowed": customer.hosted_allowed,
        "priority": customer.priority,
        "ttft_budget_s": customer.ttft_budget_s,
        "plain_budget_s": customer.plain_budget_s,
        "deadline_s": customer.deadline_s,
        "stall_timeout_s": customer.stall_timeout_s,
        "drill_every_s": customer.drill_every_s,
        "drill_share": customer.drill_share,
        "on_broken_stream": customer.on_broken_stream,
        "seed_streams": customer.seed_streams,
        "api_keys": [
            {"name": key.name, "expires": None if key.expires is None else key.expires.isoformat()} for key in keys
        ],
    }


def _step(step: Step) -> Document:
    if isinstance(step, ProviderStep):
        return {
            "provider": step.provider.name,
            "model": step.model,
            "system_prompt": step.system_prompt is not None,
            "drop": sorted(step.drop),
        }
    if isinstance(step, BaseStep):
        return {"base": {}}
    return {"static": step.text, "even_for_tools": step.even_for_tools}
