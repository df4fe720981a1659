"""`/admin/*`: what a running gateway knows, for people and tools that hold the admin token."""

from __future__ import annotations

import asyncio
import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.responses import JSONResponse

from gateway.control import documents
from gateway.control.sources import ControlSources

LONGEST_WAIT_S = 30.0
"""A long poll for events is answered after this at the latest, with or without any."""


def admin_router(sources: ControlSources) -> APIRouter:
    """The admin API. Every route asks for ``Authorization: Bearer <admin token>``."""

    def require_token(authorization: Annotated[str, Header()] = "") -> None:
        if not sources.admin_token:
            raise HTTPException(
                403, "The admin API is off: start the gateway with FAILSOFT_ADMIN_TOKEN set in its environment."
            )
        scheme, _, token = authorization.partition(" ")
        good = hmac.compare_digest(token.strip().encode("latin-1"), sources.admin_token.encode())
        if scheme.lower() != "bearer" or not good:
            raise HTTPException(
                401,
                "The admin token is missing or wrong: send it as `Authorization: Bearer TOKEN`.",
                headers={"www-authenticate": "Bearer"},
            )

    router = APIRouter(prefix="/admin", dependencies=[Depends(require_token)])

    @router.get("/status")
    async def read_status() -> JSONResponse:
        return _fresh(documents.status(sources))

    @router.get("/customers")
    async def read_customers() -> JSONResponse:
        return _fresh(documents.customers(sources.policies.current))

    @router.get("/events")
    async def read_events(
        after: Annotated[int, Query(ge=0)] = 0, wait_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = 0.0
    ) -> JSONResponse:
        """The events after sequence number ``after``; with ``wait_s``, waits that long for the first."""
        events = sources.events.since(after)
        if not events and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    events = await sources.events.wait(after)
            except TimeoutError:
                events = ()
        return _fresh({"newest": sources.events.newest, "events": [event.as_json() for event in events]})

    return router


def _fresh(document: documents.Document) -> JSONResponse:
    return JSONResponse(document, headers={"cache-control": "no-store"})
