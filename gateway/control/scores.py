"""`/admin/scores`: how good customers' answers are by their own adapter and by their fallback, as evals found."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.clock import wall_s
from gateway.control.envelope import fresh
from gateway.control.names import in_force, unknown_customer
from gateway.control.sources import ControlSources
from gateway.errors import RequestError, StoreError
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
        policy = in_force(sources.policies.current)
        if customer is not None and customer not in policy.customers:
            raise unknown_customer(customer, policy.customers)
        names = policy.customers if customer is None else [customer]
        rows = sources.scores.book.worst(names, len(policy.customers))
        return fresh({"scores": rows})

    @router.post("/scores")
    async def publish(published: Publication) -> JSONResponse:
        """Take scores in for all gateways on the store, in the place of earlier ones."""
        policy = in_force(sources.policies.current)
        for one in published.scores:
            if one.customer not in policy.customers:
                raise unknown_customer(one.customer, policy.customers)
        at = round(wall_s(), 3)
        try:
            await sources.scores.publish([Score(at=at, **one.model_dump()) for one in published.scores])
        except StoreError as error:
            raise RequestError(503, f"The scores are not kept: {error}.", type="server_error") from None
        return fresh({"taken": len(published.scores)})

    return router
