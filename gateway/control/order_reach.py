"""Whom an order to degrade reaches: who can answer each customer instead of its own adapter, by its policy as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.control.sources import ControlSources
from gateway.orders.order import ALL
from gateway.policy.compiled import BaseStep, CustomerPolicy, ProviderStep, StaticStep, Step

MOST_NAMES = 50
"""Of each kind, beside how many there are."""

Document = dict[str, Any]


def reach(sources: ControlSources, target: str) -> Document:
    """Of the customers that an order for ``target`` is about (``of`` counts them), those that it does not reach whole.

    ``unanswerable``: no step can answer, so that the own adapter still does. ``text_only``: a fixed text can, and
    requests with tools or for JSON still get the own adapter. ``boxes_only``: none but the boxes' base model.
    """
    policy, of = sources.policies.current, 0
    found: dict[str, list[str]] = {"unanswerable": [], "text_only": [], "boxes_only": []}
    if policy is not None:
        everybody = policy.customers
        named = everybody.values() if target == ALL else [everybody[target]] if target in everybody else []
        of = len(named)
        for customer in named:
            if (kind := _kind(_able(customer, sources))) is not None:
                found[kind].append(customer.name)
    kinds = {kind: {"count": len(names), "customers": sorted(names)[:MOST_NAMES]} for kind, names in found.items()}
    return {"of": of, **kinds}


def _able(customer: CustomerPolicy, sources: ControlSources) -> Iterable[Step]:
    """The steps that can be taken. Also a provider whose circuit is open: it may be back with the next try."""
    capped = customer.usd_per_day is not None
    spent = capped and sources.accounts is not None and sources.accounts.cap_is_spent(customer)
    for step in customer.steps:
        if isinstance(step, ProviderStep):
            unpriced = capped and step.price is None
            if step.provider.unavailable is not None or spent or unpriced:
                continue
        yield step


def _kind(steps: Iterable[Step]) -> str | None:
    """None where every request can be answered by somebody else than a box."""
    kind = "unanswerable"
    for step in steps:
        if isinstance(step, ProviderStep) or (isinstance(step, StaticStep) and step.even_for_tools):
            return None
        if isinstance(step, BaseStep):
            kind = "boxes_only"
        elif kind == "unanswerable":
            kind = "text_only"
    return kind
