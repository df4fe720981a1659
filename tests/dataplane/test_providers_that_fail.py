"""What attempts tell a provider's health, and that they give back what they hold of it."""

from __future__ import annotations

import asyncio
from asyncio import Event
from dataclasses import replace

import pytest

from gateway.errors import ConnectError, UpstreamError, UpstreamStatus
from gateway.fleet.breaker import THRESHOLD
from gateway.fleet.provider_health import ProviderHealth
from gateway.policy.compiled import ProviderStep, StaticStep
from tests.dataplane.conftest import Connect, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY, Plane, compiled, provider_step
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked, whole
from tests.support.checker import check_plain
from tests.support.eventually import eventually

NO_BOX = "http://127.0.0.1:1"
"""Nobody listens there."""

LONG_AGO_S = 5.0
ANSWER = whole(b'{"model":"generic-mini","choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}')


def now() -> float:
    return asyncio.get_running_loop().time()


def health_of(plane: Plane, step: ProviderStep) -> ProviderHealth:
    return plane.hosted.of(step.provider)


def fail(health: ProviderHealth, error: UpstreamError, at: float) -> None:
    for permit in [health.admit(at, streamed=True) for _ in range(THRESHOLD)]:
        assert permit is not None
        permit.failed(error, at)


@pytest.mark.parametrize("error", [UpstreamStatus(500), UpstreamStatus(429)], ids=["open", "backing off"])
async def test_a_client_that_leaves_while_the_provider_is_tried_gives_the_trial_to_the_next(
    serve: ServePlane, scripted: StartScripted, connect: Connect, error: UpstreamError
) -> None:
    silent = await scripted(Event())
    step = provider_step(silent.url)
    plane = await serve([NO_BOX], step)
    health = health_of(plane, step)
    fail(health, error, now() - LONG_AGO_S)
    _, writer = await connect(plane)
    body = b'{"model":"acme_v3","messages":[],"stream":true}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await eventually(lambda: silent.requests)
    assert health.state(now()) == "half_open"
    assert health.condition(now()) is not None, "one trial at a time"
    writer.transport.abort()
    await eventually(lambda: health.condition(now()) is None)
    assert health.state(now()) == "half_open"
    await eventually(lambda: plane.idle)


async def test_a_provider_that_names_a_date_is_left_alone_until_then(
    serve: ServePlane, scripted: StartScripted
) -> None:
    head = b"date: Wed, 25 Nov 2026 10:00:00 GMT\r\nretry-after: Wed, 25 Nov 2026 10:00:20 GMT\r\n"
    busy = whole(b"{}", status=429).replace(b"\r\n", b"\r\n" + head, 1)
    step = provider_step((await scripted(busy)).url)
    plane = await serve([NO_BOX], step, StaticStep("Later."))
    assert (await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"] == "static"
    retry_at = health_of(plane, step).retry_at
    assert retry_at is not None
    assert 15.0 < retry_at - now() <= 20.0


async def test_streams_that_break_after_their_first_content_count_and_whole_ones_do_not(
    serve: ServePlane, scripted: StartScripted
) -> None:
    broken, well = await scripted(STREAM_HEAD, chunked(*NUMBERED[:4]), END), await scripted(ANSWER)
    step = provider_step(broken.url)
    plane = await serve([NO_BOX], step)
    for _ in range(10):
        assert health_of(plane, step).state(now()) == "closed"
        answer = await plane.raw().chat(ADAPTER, stream=True)
        assert b'"error"' in answer.body
    assert health_of(plane, step).state(now()) == "open"
    # Its address changed: another server, of which nothing is known.
    other = provider_step(well.url)
    plane.change(compiled([NO_BOX], [other], version=8))
    for _ in range(THRESHOLD):
        assert (await plane.raw().chat(ADAPTER, stream=False)).headers["x-failsoft-served-by"] == "provider:hosted"
    assert health_of(plane, other).state(now()) == "closed"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_an_answer_about_one_request_or_one_customers_model_keeps_nobody_from_the_provider(
    serve: ServePlane, scripted: StartScripted, status: int
) -> None:
    provider = await scripted(whole(b'{"error":{"message":"no"}}', status=status))
    step = provider_step(provider.url)
    plane = await serve([NO_BOX], step, StaticStep("later"))
    for _ in range(2 * THRESHOLD):
        assert check_plain(await plane.raw().chat(ADAPTER, stream=False), text="later").violations == []
    assert len(provider.requests) == 2 * THRESHOLD
    assert health_of(plane, step).state(now()) == "closed"


async def test_the_reason_of_the_answer_behind_a_skipped_step_is_that_of_the_own_adapter(
    serve: ServePlane, scripted: StartScripted
) -> None:
    lacking = await scripted(whole(b"{}", status=404))
    step = provider_step(NO_BOX)
    plane = await serve([lacking], step, StaticStep("later"))
    fail(health_of(plane, step), ConnectError("refused"), now())
    answer = await plane.raw().chat(ADAPTER, stream=False)
    assert check_plain(answer, text="later").violations == []
    assert answer.headers["x-failsoft-degraded"] == "adapter_unavailable"
    assert answer.headers["x-failsoft-attempts"] == "2"


async def test_a_provider_whose_trial_was_taken_in_between_was_not_asked_and_is_asked_by_the_next(
    serve: ServePlane, scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = await scripted(ANSWER)
    step = provider_step(provider.url)
    plane = await serve([NO_BOX], step)
    health = health_of(plane, step)
    fail(health, UpstreamStatus(429), now() - LONG_AGO_S)
    trial = health.admit(now(), streamed=False)
    assert trial is not None
    # As if the step had been looked at just before another request took the one trial that is allowed.
    with monkeypatch.context() as patch:
        patch.setattr(ProviderHealth, "condition", lambda self, at: None)
        answer = await plane.raw().chat(ADAPTER, stream=False)
    assert (answer.status, provider.requests) == (503, [])
    assert b"provider:hosted: skipped" in answer.body
    trial.released()
    assert (await plane.raw().chat(ADAPTER, stream=False)).headers["x-failsoft-served-by"] == "provider:hosted"


async def test_a_provider_that_cannot_be_asked_as_it_is_configured_has_not_failed(serve: ServePlane) -> None:
    asked = provider_step(NO_BOX)
    step = replace(asked, provider=replace(asked.provider, unavailable="${KEY} is not set"))
    plane = await serve([NO_BOX], step)
    for _ in range(2 * THRESHOLD):
        answer = await plane.raw().chat(ADAPTER, stream=False)
        assert (answer.status, b"it is not configured" in answer.body) == (503, True)
    assert health_of(plane, step).state(now()) == "closed"
