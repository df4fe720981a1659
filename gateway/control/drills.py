"""`/admin/drills`: when each fallback was last seen to work, and a try of it now."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from gateway.control.envelope import fresh
from gateway.control.names import in_force, unknown_customer, unknown_name
from gateway.control.sources import ControlSources
from gateway.errors import RequestError
from gateway.policy.compiled import CustomerPolicy, ProviderStep


class Drill(BaseModel):
    """``provider``: only steps that ask this one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: str
    provider: str | None = None


def drills_router(sources: ControlSources) -> APIRouter:
    """The routes, to be put behind the admin token."""
    router = APIRouter()

    @router.get("/drills")
    async def read_drills(customer: str | None = None) -> JSONResponse:
        if customer is None:
            return fresh(sources.drills.overview())
        return fresh({"customer": customer, "proofs": sources.drills.of(_customer(sources, customer).name)})

    @router.post("/drills")
    async def drill(asked: Drill) -> JSONResponse:
        """Ask each step that can be proven a small question now. Answers when all have answered, failed or
        were held back."""
        customer = _customer(sources, asked.customer)
        _something_to_try(customer, asked.provider)
        proofs = await sources.drills.drill(customer, asked.provider)
        ok = all(not one["held_back"] and one["last"]["ok"] for one in proofs)
        return fresh({"customer": customer.name, "ok": ok, "proofs": proofs})

    return router


def _customer(sources: ControlSources, name: str) -> CustomerPolicy:
    policy = in_force(sources.policies.current)
    if (customer := policy.customers.get(name)) is None:
        raise unknown_customer(name, policy.customers)
    return customer


def _something_to_try(customer: CustomerPolicy, provider: str | None) -> None:
    """Raises :class:`RequestError`: 404 where no step of the customer's asks ``provider``, or any at all."""
    steps = customer.drillable
    hosted = {step.provider.name for step in steps if isinstance(step, ProviderStep)}
    why = "" if customer.hosted_allowed else " Its policy keeps every token on your own boxes (hosted.allowed: false)."
    if provider is not None and provider not in hosted:
        what = f"No step of {customer.name}'s fallback asks a provider `{provider}`.{why}"
        raise unknown_name("provider", what, provider, hosted, "Providers that it may ask")
    if not steps:
        message = f"{customer.name}'s fallback has no step that could be tried: nothing in it asks anybody.{why}"
        raise RequestError(404, message, param="customer", code="nothing_to_drill")
