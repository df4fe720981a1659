"""`/admin/usage`: what customers have used, by day."""

from __future__ import annotations

import datetime as dt

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.clock import today_utc
from gateway.control.envelope import fresh
from gateway.control.names import unknown_customer
from gateway.control.sources import ControlSources
from gateway.errors import RequestError, StoreError

MOST_DAYS = 400
"""As long as usage is kept."""


def add_usage(router: APIRouter, sources: ControlSources) -> None:
    """Serve it."""

    @router.get("/usage")
    async def read_usage(
        since: dt.date | None = None, until: dt.date | None = None, customer: str | None = None
    ) -> JSONResponse:
        """A row for each day (UTC) from ``since`` to ``until``, both counted and today when left out, each customer,
        kind of target and reason. 404 for a customer that no policy names and that has used nothing."""
        last = today_utc() if until is None else until
        first = last if since is None else since
        if not 0 <= (last - first).days <= MOST_DAYS:
            raise RequestError(400, f"since has to be at most {MOST_DAYS} days before until.", code="bad_range")
        if sources.accounts is None:
            raise RequestError(503, "There is no store yet.", type="server_error", code="no_store")
        try:
            rows = await sources.accounts.usage(first, last, customer)
        except StoreError as error:
            raise RequestError(503, f"{error}", type="server_error", code="store_unreachable") from error
        policy = sources.policies.current
        if customer is not None and not rows and policy is not None and customer not in policy.customers:
            raise unknown_customer(customer, policy.customers)
        document = {"since": first.isoformat(), "until": last.isoformat(), "usage": rows}
        return fresh(document)
