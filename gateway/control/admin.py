"""`/admin/*`: what a running gateway knows, for people and tools that hold the admin token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.responses import JSONResponse

from gateway.control import documents
from gateway.control.sources import ControlSources
from gateway.errors import RequestError
from gateway.fleet.box import Box
from gateway.policy.diagnostics import nearest

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

    # A name with a slash in it is a name that nobody has, and no path that is not served.
    @router.get("/boxes/{name:path}")
    async def read_box(name: str) -> JSONResponse:
        return _fresh(documents.box_state(_box(sources, name), sources.fleets, sources.clock()))

    @router.post("/boxes/{name:path}/drain")
    async def drain(name: str) -> JSONResponse:
        """Nothing new goes to the box, what runs there goes on. It holds for this gateway, until it ends."""
        box = _box(sources, name)
        changed = not box.duty.drained
        box.drain()
        return _fresh({"changed": changed, "box": documents.box_state(box, sources.fleets, sources.clock())})

    @router.post("/boxes/{name:path}/undrain")
    async def undrain(name: str) -> JSONResponse:
        """The box takes traffic again, in a ramp."""
        box = _box(sources, name)
        changed = box.duty.drained
        box.undrain(sources.clock())
        return _fresh({"changed": changed, "box": documents.box_state(box, sources.fleets, sources.clock())})

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


def _box(sources: ControlSources, name: str) -> Box:
    if (found := sources.fleets.find(name)) is not None:
        return found
    raise _unknown("box", name, [box.name for box in sources.fleets.all()], "Boxes of the policy in force")


def _unknown(noun: str, name: str, known: Iterable[str], these: str) -> RequestError:
    """A 404 that helps: the nearest name, and what names there are."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near}?" if near is not None else ""
    there = f" {these}: {', '.join(names)}." if names else f" {these}: none."
    return RequestError(404, f"There is no {noun} `{name}`.{hint}{there}", param=noun, code=f"{noun}_not_found")


def _fresh(document: documents.Document) -> JSONResponse:
    return JSONResponse(document, headers={"cache-control": "no-store"})
