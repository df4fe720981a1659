"""Drills as the control plane shows and asks for them: JSON documents."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from gateway.drills.keeper import DrillKeeper
from gateway.drills.ledger import Entry
from gateway.policy.compiled import BaseStep, CustomerPolicy

Document = dict[str, Any]

MOST_SHOWN = 50
"""Ways to fall back that an overview shows one by one, and customers that each of them names."""


class DrillDesk:
    """What the admin API asks."""

    def __init__(self, keeper: DrillKeeper) -> None:
        self._keeper = keeper

    def overview(self) -> Document:
        """All steps that can be proven, and of the single ways to fall back those that need a look first."""
        entries = self._keeper.entries()
        by_name: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_name[entry.target.name].append(entry)
        return {
            "steps": [_step(name, found) for name, found in sorted(by_name.items())],
            "proofs": [document(entry) for entry in entries[:MOST_SHOWN]],
            "more": max(0, len(entries) - MOST_SHOWN),
        }

    def of(self, customer: str) -> list[Document]:
        """All of one customer."""
        return [document(entry) for entry in self._keeper.entries(customer)]

    async def drill(self, customer: CustomerPolicy, provider: str | None) -> list[Document]:
        """Try them now; see :meth:`gateway.drills.keeper.DrillKeeper.drill`."""
        return [document(entry) for entry in await self._keeper.drill(customer, provider)]


def document(entry: Entry) -> Document:
    """One way to fall back. Times are Unix time, by the store's clock."""
    target, proof = entry.target, entry.proof
    step = target.step
    return {
        "step": target.name,
        "model": target.customer.fleet.base_model if isinstance(step, BaseStep) else step.model,
        "state": entry.state,
        "age_s": None if entry.age_s is None else round(entry.age_s, 1),
        "held_back": entry.held_back,
        "every_s": target.every_s,
        "customers": list(target.customers[:MOST_SHOWN]),
        "more_customers": max(0, len(target.customers) - MOST_SHOWN),
        "last": None
        if proof is None
        else {
            "at": proof.at_ms / 1000,
            "by": proof.by,
            "ok": proof.ok,
            "error": proof.error,
            "served_model": proof.model,
            "first_content_ms": proof.first_content_ms,
            "failures": proof.failures,
        },
    }


def _step(name: str, entries: list[Entry]) -> Document:
    states = [entry.state for entry in entries]
    ages = [entry.age_s for entry in entries if entry.age_s is not None]
    errors = [entry.proof.error for entry in entries if entry.proof is not None and entry.proof.error]
    return {
        "step": name,
        "ways": len(entries),
        "customers": len({customer for entry in entries for customer in entry.target.customers}),
        **{state: states.count(state) for state in ("proven", "failed", "stale", "unproven")},
        "held_back": sum(bool(entry.held_back) for entry in entries),
        # Of what was proven at all.
        "oldest_age_s": round(max(ages), 1) if ages else None,
        "last_error": errors[0] if errors else "",
    }
