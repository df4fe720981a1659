"""Client libraries get from the gateway what they would get from vLLM itself."""

from __future__ import annotations

import json
from typing import Any

from tests.clients.clients import Client, all_that
from tests.clients.script import Seen
from tests.clients.town import TOKENS, Caller, Town, expect_own_vectors
from tests.faults.invariants import CANCELLED_WITHIN_S, SLACK_S
from tests.support.eventually import eventually

STALLED_AFTER = 10
"""Events of a stream before it stands still."""
FINISHED = ("stop", "completed", "end_turn")
"""How each API says that an answer is whole; frameworks have one word for all."""


def expect_own_answer(client: Client, seen: Seen, caller: Caller) -> None:
    """What was said is the adapter's own, whole, and not marked."""
    assert "errors" not in seen, seen["errors"]
    assert not seen.get("degraded")
    if client.shows_model and not client.hides(seen):
        assert seen["model"] == caller.adapter
    assert seen.get("finish") in (None, *FINISHED)


def called(seen: Seen) -> list[tuple[str, Any]]:
    """The tools that were called, with their arguments."""
    assert all(call["id"] for call in seen["calls"])
    read = [
        json.loads(call["arguments"]) if isinstance(call["arguments"], str) else call["arguments"]
        for call in seen["calls"]
    ]
    return [(call["name"], arguments) for call, arguments in zip(seen["calls"], read, strict=True)]


@all_that("plain")
async def test_a_plain_answer_arrives_whole(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "plain")
    expect_own_answer(client, seen, caller)
    assert seen["text"] == caller.text
    assert seen["tokens"] == TOKENS


@all_that("stream")
async def test_a_stream_arrives_whole_and_in_pieces(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "stream")
    expect_own_answer(client, seen, caller)
    if client.streams_objects:
        assert seen["parsed"] == caller.parsed
    else:
        assert seen["text"] == caller.text
        assert seen["tokens"] == TOKENS
    assert seen["pieces"] > 3


@all_that("tools")
async def test_a_tool_is_called(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "tools")
    assert "errors" not in seen, seen["errors"]
    if client.streams_objects:
        assert seen["parsed"] == caller.parsed
    else:
        assert called(seen) == [("look_up", caller.parsed)]


@all_that("stream-tools")
async def test_a_tool_is_called_in_a_stream(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "stream-tools")
    assert "errors" not in seen, seen["errors"]
    assert called(seen) == [("look_up", caller.parsed)]


@all_that("structured")
async def test_an_answer_becomes_the_callers_own_type(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "structured")
    expect_own_answer(client, seen, caller)
    assert seen["parsed"] == caller.parsed


@all_that("stream-structured")
async def test_a_streamed_answer_becomes_the_callers_own_type(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "stream-structured")
    expect_own_answer(client, seen, caller)
    assert seen["parsed"] == caller.parsed


@all_that("completions")
async def test_a_legacy_completion_arrives_whole(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "completions")
    expect_own_answer(client, seen, caller)
    assert seen["text"] == caller.text


@all_that("models")
async def test_models_are_the_customers_own(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "models")
    assert "errors" not in seen, seen["errors"]
    assert seen["models"] == sorted(caller.customer.adapters)
    assert seen["model"] == caller.adapter


@all_that("embeddings")
async def test_vectors_are_the_adapters_own_one_for_each_text(town: Town, client: Client) -> None:
    caller, seen = await town.undisturbed(client, "embeddings")
    expect_own_vectors(seen, caller)


@all_that("cancel")
async def test_leaving_a_stream_frees_the_box(town: Town, client: Client) -> None:
    caller = town.caller()
    for box in town.boxes.values():
        box.admin.fault("stall", adapter=caller.adapter, after_chunks=STALLED_AFTER)
    # The client's process lives on: nothing else closes its connection.
    seen = await town.ask(client, "cancel", caller, pieces=STALLED_AFTER - client.opening)
    assert seen["cancelled"] is True
    within_s = CANCELLED_WITHIN_S + SLACK_S
    (arrived,) = await eventually(
        lambda: [one for one in town.arrivals(caller) if one["ended_monotonic"] is not None], within_s=within_s
    )
    assert arrived["client_left"]
    await eventually(lambda: town.in_flight() == 0, within_s=within_s)
