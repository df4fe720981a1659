"""What the gateway refuses is the exception that the library has for it, and is asked again only where that helps."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.clients.clients import Client, all_that
from tests.clients.script import Seen
from tests.clients.town import LIMITED, LONELY, Town
from tests.support.eventually import eventually
from tests.support.raw_client import RawClient


def refused_with(seen: Seen) -> set[Any]:
    """The statuses that the library's user can read from the exception, or from one behind it."""
    return {error["status"] for error in seen["errors"]} - {None}


@all_that("plain")
async def test_a_wrong_key_is_a_401(town: Town, client: Client) -> None:
    seen = await town.ask(client, "plain", town.caller(), key="nobodys")
    assert refused_with(seen) == {401}


@all_that("plain")
async def test_somebody_elses_model_is_a_404(town: Town, client: Client) -> None:
    seen = await town.ask(client, "plain", town.caller(), model=LONELY.adapters[0])
    assert refused_with(seen) == {404}
    assert any(LONELY.adapters[0] in error["message"] for error in seen["errors"])


@all_that("plain")
async def test_a_limit_is_a_429_that_says_when_to_ask_again(town: Town, client: Client) -> None:
    caller = town.caller(LIMITED)
    for box in town.boxes.values():
        box.admin.fault("stall", adapter=caller.adapter, seconds=None)
    raw = RawClient(town.gateway.url, key=LIMITED.key)
    async with asyncio.TaskGroup() as group:
        other = group.create_task(raw.chat(caller.adapter, timeout_s=300))
        await eventually(lambda: town.arrivals(caller), within_s=10)
        seen = await town.ask(client, "plain", caller, retries=0)
        other.cancel()
    assert refused_with(seen) == {429}
    waits = {error["retry_after"] for error in seen["errors"]} - {None}
    assert not waits or waits == {"1"}
    assert waits or not client.shows_degraded


@all_that("plain")
async def test_when_nothing_can_answer_it_is_a_503_and_not_asked_again(town: Town, client: Client) -> None:
    await expect_503(town, client, "plain")


@all_that("stream")
async def test_when_nothing_can_answer_a_stream_is_a_503_and_not_asked_again(town: Town, client: Client) -> None:
    await expect_503(town, client, "stream")


async def expect_503(town: Town, client: Client, scenario: str) -> None:
    caller = town.caller(LONELY)
    for box in town.boxes.values():
        box.admin.fault("status", status=500, adapter=caller.adapter)
    seen = await town.ask(client, scenario, caller)
    assert refused_with(seen) == ({500, 503} if client.makes_503_a_500 else {503})
    # An attempt's id is its request's with a number behind it.
    arrived = {arrival["headers"]["x-request-id"].rpartition("-")[0] for arrival in town.arrivals(caller)}
    assert len(arrived) == 1, f"it was asked {len(arrived)} times"


@all_that("embeddings")
async def test_without_any_box_vectors_are_a_503_and_nobody_elses(town: Town, client: Client) -> None:
    """A provider could make some: they would not compare with those that the customer has."""
    for box in town.boxes.values():
        box.kill()
    seen = await town.ask(client, "embeddings", town.caller())
    assert refused_with(seen) == {503}
    raised = {kind for error in seen["errors"] for kind in error["types"]}
    assert raised & {"InternalServerError", "ServiceUnavailableError"}
    assert "vectors" not in seen
