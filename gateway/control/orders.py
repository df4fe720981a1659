"""`/admin/degrade`, `/admin/restore`, `/admin/orders`: customers on their fallback, because somebody said so."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.control import documents
from gateway.control.admin_actor import actor_of, one_line
from gateway.control.envelope import fresh
from gateway.control.names import in_force, unknown_customer
from gateway.control.order_reach import reach
from gateway.control.sources import ControlSources
from gateway.errors import RequestError
from gateway.observe.actor import Actor
from gateway.orders.order import ALL, LONGEST_S
from gateway.policy.durations import parse_interval

LONGEST_TEXT = 500
"""Characters of a reason, or of who gives an order."""


class Target(BaseModel):
    """Whom it is about: ``customer``, or ``all``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: str | None = None
    all: bool = False


class Degrade(Target):
    """``for``: a duration such as 10m or 2h. ``by``: who asks, where the header that says so is not sent."""

    for_: str = Field(alias="for")
    reason: str = Field("", max_length=LONGEST_TEXT)
    by: str = Field("", max_length=LONGEST_TEXT)


def orders_router(sources: ControlSources) -> APIRouter:
    """The routes, to be put behind the admin token."""
    router = APIRouter()

    @router.get("/orders")
    async def read_orders() -> JSONResponse:
        return fresh({"orders": documents.orders(sources)})

    @router.post("/degrade")
    async def degrade(asked: Degrade, request: Request) -> JSONResponse:
        """It holds here at once, and within a second on all gateways that the store hears; ``silent`` are the others.

        ``unanswerable`` names the customers that no step of the fallback can answer: their own adapter still does.
        """
        target = _target(sources, asked)
        try:
            for_s = parse_interval(asked.for_, LONGEST_S)
        except ValueError as error:
            raise RequestError(400, f"for: {error}.", param="for", code="invalid_duration") from None
        actor = actor_of(request)
        if not actor.user:
            actor = Actor(actor.by, one_line(asked.by))
        order, shared = await sources.orders.degrade(target, for_s, reason=one_line(asked.reason), actor=actor)
        document = {**documents.order(order, for_s), **reach(sources, target)}
        return fresh({"order": document, "shared": shared, "silent": documents.silent(sources)})

    @router.post("/restore")
    async def restore(asked: Target, request: Request) -> JSONResponse:
        """The order for a customer ends; ``all``: every order. What is still in force is in ``orders``."""
        target = _target(sources, asked, also_gone=True)
        ended, shared = await sources.orders.restore(target, actor_of(request))
        return fresh(
            {
                "changed": bool(ended),
                "ended": [documents.order(order, 0.0) for order in ended],
                "shared": shared,
                "silent": documents.silent(sources),
                "orders": documents.orders(sources),
            }
        )

    return router


def _target(sources: ControlSources, asked: Target, *, also_gone: bool = False) -> str:
    """Raises :class:`RequestError`. ``also_gone``: a customer that only an order still knows will do as well."""
    if asked.all == (asked.customer is not None):
        raise RequestError(400, "Name a customer, or all.", param="customer", code="no_target")
    if asked.customer is None:
        return ALL
    policy = in_force(sources.policies.current)
    known = set(policy.customers)
    if also_gone:
        known |= {one.order.target for one in sources.orders.standing()} - {ALL}
    if asked.customer not in known:
        raise unknown_customer(asked.customer, policy.customers)
    return asked.customer
