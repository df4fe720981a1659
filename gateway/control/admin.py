"""`/admin/*`: what a running gateway knows, for people and tools that hold the admin token."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from gateway.control import alias_documents, documents
from gateway.control.admin_actor import actor_of
from gateway.control.drills import drills_router
from gateway.control.envelope import fresh
from gateway.control.names import in_force, unknown_customer, unknown_name
from gateway.control.orders import orders_router
from gateway.control.scores import scores_router
from gateway.control.sources import ControlSources
from gateway.control.usage import add_usage
from gateway.fleet.box import Box
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy

LONGEST_WAIT_S = 30.0
"""A long poll for events is answered after this at the latest, with or without any."""


MOST_ENTRIES = 1000
"""Of the audit log in one answer, as each takes the event loop some 10 µs. `failsoft audit --redis` reads more."""


def admin_router(sources: ControlSources) -> APIRouter:
    """The admin API. :class:`~gateway.control.admin_gate.AdminGate` stands before every route of it."""
    router = APIRouter(prefix="/admin")

    @router.get("/status")
    async def read_status() -> JSONResponse:
        return fresh(documents.status(sources))

    @router.get("/customers")
    async def read_customers() -> JSONResponse:
        return fresh(documents.customers(sources.policies.current))

    # A name with a slash in it is a name that nobody has, and no path that is not served.
    @router.get("/boxes/{name:path}")
    async def read_box(name: str) -> JSONResponse:
        return fresh(documents.box_state(_box(sources, name), sources.fleets, sources.clock()))

    @router.post("/boxes/{name:path}/drain")
    async def drain(name: str, request: Request) -> JSONResponse:
        """Nothing new goes to the box, what runs there goes on. It holds for this gateway, until it ends."""
        box = _box(sources, name)
        changed = not box.duty.drained
        box.drain(actor_of(request))
        return fresh({"changed": changed, "box": documents.box_state(box, sources.fleets, sources.clock())})

    @router.post("/boxes/{name:path}/undrain")
    async def undrain(name: str, request: Request) -> JSONResponse:
        """The box takes traffic again, in a ramp."""
        box = _box(sources, name)
        changed = box.duty.drained
        box.undrain(sources.clock(), actor_of(request))
        return fresh({"changed": changed, "box": documents.box_state(box, sources.fleets, sources.clock())})

    @router.get("/explain")
    async def explain(customer: str, model: str, stream: bool = True, conversation: str = "") -> JSONResponse:
        """The plan that would be made now for a request of ``customer`` for ``model``, and why. It changes nothing.

        ``conversation``: where the model is an alias, what the request's ``x-failsoft-conversation`` would say.
        """
        policy, asker = _asker(sources, customer, model)
        alias = asker.aliases.get(model)
        adapters = (model,) if alias is None else alias_documents.versions(alias, conversation)
        found = sources.explain(asker, adapters[0], others=adapters[1:], stream=stream, now=sources.clock())
        if sources.accounts is not None:
            found["limits"] = sources.accounts.customer(asker)
        shown = None if alias is None else alias_documents.alias_for(alias, conversation)
        orders = [one for one in documents.orders(sources) if one["customer"] in (None, customer)]
        found |= {"model": model, "alias": shown, "orders": orders, "scores": sources.scores.book.of(customer)}
        return fresh({"policy_version": policy.version, **found})

    add_usage(router, sources)

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
        return fresh({"newest": sources.events.newest, "events": [event.as_json() for event in events]})

    router.include_router(orders_router(sources))
    router.include_router(drills_router(sources))
    router.include_router(scores_router(sources))

    @router.get("/audit")
    async def read_audit(
        since: Annotated[float, Query(ge=0)] = 0.0, limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES)] = 200
    ) -> JSONResponse:
        """Who changed what: the latest ``limit`` entries since a Unix time, oldest first.

        ``complete`` is false while the store is away: then they are those that this gateway remembers.
        """
        entries, error = await sources.audit.read(since_s=since, limit=limit)
        missing = None if error is None else str(error)
        return fresh({"complete": error is None, "missing": missing, "entries": [one.as_json() for one in entries]})

    return router


def _box(sources: ControlSources, name: str) -> Box:
    if (found := sources.fleets.find(name)) is not None:
        return found
    known = [box.name for box in sources.fleets.all()]
    raise unknown_name("box", f"There is no box `{name}`.", name, known, "Boxes of the policy in force")


def _asker(sources: ControlSources, customer: str, model: str) -> tuple[CompiledPolicy, CustomerPolicy]:
    """The customer, if ``model`` is its own. Raises :class:`RequestError`: 404, or 503 before the first policy."""
    policy = in_force(sources.policies.current)
    found = policy.customers.get(customer)
    if found is None:
        raise unknown_customer(customer, policy.customers)
    if model not in found.adapters and model not in found.aliases:
        owner = next((one.name for one in policy.customers.values() if model in one.adapters), None)
        what = f"`{model}` is no model of {customer}'s." if owner is None else f"`{model}` is {owner}'s."
        raise unknown_name("model", what, model, found.adapters | found.aliases.keys(), f"Models of {customer}")
    return policy, found
