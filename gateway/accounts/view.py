"""The accounts for people: how limits and caps stand, and what was used on which days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway.accounts.account import KINDS, Kind
from gateway.accounts.account_store import AccountStore
from gateway.accounts.terms import PROVIDER, is_limited, terms_of
from gateway.accounts.usage import COUNTS, NANO
from gateway.errors import StoreError
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy

MOST_CUSTOMERS = 100
"""Of whom `/admin/status` shows how their limits stand: those that have used most of theirs."""

Document = dict[str, Any]


class Known(Protocol):
    """Who knows how limits stand, as far as was heard."""

    def left(self, key: str, kind: Kind) -> int | None:
        """What is left of a limit; None where there is none."""

    def spent(self, customer: str) -> int:
        """Nano-USD of today."""


class AccountsView:
    """``store``: where usage is kept, once it is known; ``flush`` has what was counted lately written there first."""

    def __init__(
        self, known: Known, store: Callable[[], AccountStore | None], flush: Callable[[], Awaitable[None]]
    ) -> None:
        self._known = known
        self._store = store
        self._flush = flush

    def customer(self, customer: CustomerPolicy) -> Document:
        """How one customer's limits and cap stand."""
        terms = terms_of(customer)
        found: Document = {kind: self._limit(customer.name, kind, terms.of(kind)) for kind in KINDS}
        spent_usd = self._known.spent(customer.name) / NANO
        cap = customer.usd_per_day
        found["hosted"] = {"usd_per_day": cap, "spent_usd": round(spent_usd, 6)}
        return found

    def cap_is_spent(self, customer: CustomerPolicy) -> bool:
        """Whether hosted providers are not asked for it any more today."""
        cap = customer.usd_per_day
        return cap is not None and self._known.spent(customer.name) >= cap * NANO

    def status(self, policy: CompiledPolicy) -> Document:
        """Customers that have limits or a cap, those nearest to one first, and what is at each provider."""
        rows = [
            {"customer": name, **self.customer(customer)}
            for name, customer in policy.customers.items()
            if is_limited(customer) or customer.usd_per_day is not None
        ]
        rows.sort(key=_used, reverse=True)
        providers = [
            {"provider": name, "concurrency": self._limit(PROVIDER + name, "concurrency", spec.max_concurrency)}
            for name, spec in policy.providers.items()
        ]
        return {"customers": rows[:MOST_CUSTOMERS], "of": len(rows), "providers": providers}

    async def usage(self, since: dt.date, until: dt.date, customer: str | None = None) -> list[Document]:
        """A row for each day, customer, kind of target and reason. Raises StoreError."""
        store = self._store()
        if store is None:
            raise StoreError("the store is not up yet")
        await self._flush()
        return await usage_rows(store, since, until, customer)

    def _limit(self, key: str, kind: Kind, limit: int | None) -> Document | None:
        return None if limit is None else {"limit": limit, "left": self._known.left(key, kind)}


async def usage_rows(
    store: AccountStore, since: dt.date, until: dt.date, customer: str | None = None
) -> list[Document]:
    """The same from the store alone. Raises StoreError."""
    rows = []
    for day, row in await store.usage(since, until):
        if customer is None or row.customer == customer:
            counts = dict(zip(COUNTS, row.counts, strict=True))
            usd = counts.pop("nano_usd") / NANO
            where = {"day": day, "customer": row.customer, "served_by": row.kind, "reason": row.reason}
            rows.append({**where, **counts, "usd": usd})
    return rows


def _used(row: Document) -> float:
    """The largest part of a limit or cap that is used."""
    limits = [limit for kind in KINDS if (limit := row[kind]) is not None and limit["left"] is not None]
    parts = [1 - limit["left"] / limit["limit"] for limit in limits]
    hosted = row["hosted"]
    if hosted["usd_per_day"]:
        parts.append(hosted["spent_usd"] / hosted["usd_per_day"])
    return max(parts, default=0.0)
