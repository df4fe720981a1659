"""What users of client libraries notice when boxes fail: nothing, a mark, or an exception; never half an answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.clients import Client, all_that
from tests.clients.script import Seen
from tests.clients.town import LONELY, Caller, Town, expect_own_vectors, numbered_object
from tests.faults.cast import GENERIC_MODEL
from tests.support.eventually import eventually

GENERIC = "generic"
"""In whose name the stand-in provider answers."""
ENDED_EARLY = 6
"""Events of a stream before it breaks: a role, and content."""


def expect_undisturbed(client: Client, seen: Seen, caller: Caller) -> None:
    assert "errors" not in seen, seen["errors"]
    assert not seen.get("degraded")
    if client.hides(seen):
        assert seen["parsed"] == caller.parsed
    else:
        assert seen["text"] == caller.text


def expect_marked(client: Client, seen: Seen, caller: Caller) -> None:
    """The provider's answer, and whatever of the mark the library lets through."""
    assert "errors" not in seen, seen["errors"]
    if client.hides(seen):
        assert seen["parsed"] == numbered_object(GENERIC)
    else:
        assert seen["text"].startswith(f"{GENERIC}: 0 1 2 ")
    if client.shows_model and not client.hides(seen):
        assert seen["model"] == (caller.adapter if client.renames_streams and seen["pieces"] else GENERIC_MODEL)
    if client.shows_degraded and not client.hides(seen):
        assert seen["degraded"]["requested_model"] == caller.adapter
        assert seen["degraded"]["reason"] in ("backend_down", "circuit_open")


async def at_faulty_box(town: Town, client: Client, scenario: str, kind: str, **fault: Any) -> tuple[Caller, Seen]:
    """Somebody new whose box has the fault, while the other box and a provider live."""
    caller = town.caller()
    box = await town.first_box(caller)
    box.admin.fault(kind, adapter=caller.adapter, **fault)
    seen = await town.ask(client, scenario, caller)
    expect_fired(box.admin.rules())
    return caller, seen


async def with_dead_box(town: Town, client: Client, scenario: str) -> None:
    caller = town.caller()
    box = await town.first_box(caller)
    box.admin.fault("die", adapter=caller.adapter)
    seen = await town.ask(client, scenario, caller)
    assert not box.running, "the box was not killed: the test proves nothing"
    expect_undisturbed(client, seen, caller)


@all_that("plain")
async def test_nobody_notices_that_the_box_is_killed_under_a_plain_request(town: Town, client: Client) -> None:
    await with_dead_box(town, client, "plain")


@all_that("stream")
async def test_nobody_notices_that_the_box_is_killed_before_a_stream_begins(town: Town, client: Client) -> None:
    await with_dead_box(town, client, "stream")


@pytest.mark.parametrize("scenario", ["plain", "stream"])
@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 503}, {"kind": "reset_before_headers"}], ids=["503", "reset"]
)
@all_that("stream")
async def test_nobody_notices_a_box_that_refuses_or_lets_go_before_it_says_something(
    town: Town, client: Client, fault: dict[str, Any], scenario: str
) -> None:
    caller, seen = await at_faulty_box(town, client, scenario, **fault)
    expect_undisturbed(client, seen, caller)


@all_that("embeddings")
async def test_nobody_notices_that_the_box_is_killed_under_a_request_for_vectors(town: Town, client: Client) -> None:
    caller = town.caller()
    box = await town.first_box(caller)
    box.admin.fault("die", adapter=caller.adapter)
    seen = await town.ask(client, "embeddings", caller)
    assert not box.running, "the box was not killed: the test proves nothing"
    expect_own_vectors(seen, caller)


async def without_boxes(town: Town, client: Client, scenario: str) -> None:
    for box in town.boxes.values():
        box.kill()
    caller = town.caller()
    expect_marked(client, await town.ask(client, scenario, caller), caller)


@all_that("plain")
async def test_without_any_box_the_answer_is_degraded_and_says_so(town: Town, client: Client) -> None:
    await without_boxes(town, client, "plain")


@all_that("stream")
async def test_without_any_box_the_stream_is_degraded_and_says_so(town: Town, client: Client) -> None:
    await without_boxes(town, client, "stream")


@all_that("tools")
async def test_without_any_box_tools_are_called_still(town: Town, client: Client) -> None:
    for box in town.boxes.values():
        box.kill()
    seen = await town.ask(client, "tools", town.caller())
    assert "errors" not in seen, seen["errors"]
    assert client.streams_objects or [call["name"] for call in seen["calls"]] == ["look_up"]


@all_that("stream", resume=True)
async def test_a_stream_that_breaks_goes_on_at_the_other_box(town: Town, client: Client) -> None:
    caller, seen = await at_faulty_box(town, client, "stream", "reset_mid_stream", after_chunks=ENDED_EARLY)
    expect_undisturbed(client, seen, caller)


@all_that("stream", resume=True)
async def test_a_stream_that_nobody_can_go_on_with_is_an_exception(town: Town, client: Client) -> None:
    caller = town.caller(LONELY)
    for box in town.boxes.values():
        box.admin.fault("reset_mid_stream", adapter=caller.adapter, after_chunks=ENDED_EARLY)
    seen = await town.ask(client, "stream", caller)
    for box in town.boxes.values():
        expect_fired(box.admin.rules())
    await expect_broken(town, client, seen, caller)


@all_that("stream", resume=False)
async def test_a_stream_of_named_events_that_breaks_is_an_exception(town: Town, client: Client) -> None:
    """Though another box and a provider live: nothing of it is kept that they could go on with."""
    caller, seen = await at_faulty_box(town, client, "stream", "reset_mid_stream", after_chunks=ENDED_EARLY)
    await expect_broken(town, client, seen, caller)


async def expect_broken(town: Town, client: Client, seen: Seen, caller: Caller) -> None:
    """The beginning of the own answer, and an exception."""
    assert seen["pieces"] > 0
    assert seen.get("errors"), "half an answer, and no word of it"
    if not client.streams_objects:
        assert caller.text.startswith(seen["text"])
        assert seen["text"] != caller.text
    assert seen.get("finish") is None
    await eventually(lambda: town.in_flight() == 0)


def expect_fired(rules: list[dict[str, Any]]) -> None:
    assert any(rule["fired"] for rule in rules), "the fault never acted: the test proves nothing"
