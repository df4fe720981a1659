"""`/admin/scores`: how good customers' answers are by their own adapter and by their fallback, as evals found."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.clock import wall_s
from gateway.control.names import unknown_name
from gateway.control.sources import ControlSources
from gateway.errors import RequestError, StoreError
from gateway.policy.compiled import CompiledPolicy
from gateway.scores.score import Score

MOST_AT_ONCE = 20_000

Share = Annotated[float, Field(ge=0, le=1)]


class Published(BaseModel):
    """One score; see :class:`gateway.scores.score.Score`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: str
    path: Literal["own", "degraded"]
    right: Share
    low: Share
    high: Share
    prompts: int = Field(ge=1)
    sets: str = Field("", max_length=64, pattern="^[0-9a-f]*$")


class Publication(BaseModel):
    """Some of them, taken together or not at all."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scores: list[Published] = Field(min_length=1, max_length=MOST_AT_ONCE)


def scores_router(sources: ControlSources) -> APIRouter:
    """The routes, to be put behind the admin token."""
    router = APIRouter()

    @router.get("/scores")
    async def read_scores(customer: str | None = None) -> JSONResponse:
        """Of all customers that were scored, those that lose most by their fallback first; or of one."""
        policy = _policy(sources)
        if customer is not None and customer not in policy.customers:
            raise _unknown(customer, policy)
        names = policy.customers if customer is None else [customer]
        rows = sources.scores.book.worst(names, len(policy.customers))
        return JSONResponse({"scores": rows}, headers={"cache-control": "no-store"})

    @router.post("/scores")
    async def publish(published: Publication) -> JSONResponse:
        """Take scores in for all gateways on the store, in the place of earlier ones."""
        policy = _policy(sources)
        for one in published.scores:
            if one.customer not in policy.customers:
                raise _unknown(one.customer, policy)
        at = round(wall_s(), 3)
        try:
            await sources.scores.publish([Score(at=at, **one.model_dump()) for one in published.scores])
        except StoreError as error:
            raise RequestError(503, f"The scores are not kept: {error}.", type="server_error") from None
        return JSONResponse({"taken": len(published.scores)}, headers={"cache-control": "no-store"})

    return router


def _policy(sources: ControlSources) -> CompiledPolicy:
    policy = sources.policies.current
    if policy is None:
        raise RequestError(503, "No policy version is loaded yet.", type="server_error", code="no_policy")
    return policy


def _unknown(customer: str, policy: CompiledPolicy) -> RequestError:
    return unknown_name("customer", f"There is no customer `{customer}`.", customer, policy.customers, "Customers")
