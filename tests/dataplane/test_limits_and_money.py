"""Limits as clients see them, what answers take, and caps on what hosted providers cost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import openai
import pytest

from gateway.accounts.accounts import Accounts
from gateway.accounts.usage import NANO
from gateway.dataplane.accounting import read_usage
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy, Price, StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, OTHER_KEY, OTHERS_ADAPTER, Plane, compiled, provider_step
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator

NO_BOX = "http://127.0.0.1:9"
PRICE = Price(1e-6, 2e-6, 0.5e-6)
LATER = StaticStep("later", even_for_tools=True)
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def having(policy: CompiledPolicy, **changes: Any) -> CompiledPolicy:
    """The same with acme changed."""
    acme = dataclasses.replace(policy.customers["acme"], **changes)
    keys = {
        digest: dataclasses.replace(key, customer=acme) if key.customer.name == "acme" else key
        for digest, key in policy.keys.items()
    }
    return dataclasses.replace(policy, customers={**policy.customers, "acme": acme}, keys=keys)


def accounts() -> Accounts:
    return Accounts(GatewayMetrics(Registry()))


def used(books: Accounts, customer: str, kind: str) -> dict[str, int]:
    """For whatever reason."""
    names = ("requests", "prompt", "completion", "cached", "nano_usd", "estimated", "unpriced")
    cells = [cell for key, cell in books.usage.total.items() if key[:2] == (customer, kind)]
    return dict(zip(names, map(sum, zip(*cells, strict=True)), strict=True))


async def test_over_the_limit_the_sdk_sees_a_rate_limit_error_and_what_is_left(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=having(compiled([boxes[0].url]), requests_per_minute=2))
    client = plane.sdk()
    raw = await client.chat.completions.with_raw_response.create(model=ADAPTER, **CHAT)  # type: ignore[call-overload]
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-reset-requests"] in ("1m0s", "1m1s")
    assert "x-ratelimit-limit-tokens" not in raw.headers
    await client.chat.completions.create(model=ADAPTER, stream=True, **CHAT)  # type: ignore[call-overload]
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(model=ADAPTER, **CHAT)  # type: ignore[call-overload]
    assert refused.value.type == "requests"
    assert refused.value.code == "rate_limit_exceeded"
    headers = refused.value.response.headers
    # The first of the two is free again after a minute, and that is what is said in each place.
    wait_s = int(headers["retry-after"])
    assert 55 <= wait_s <= 60
    assert f"Ask again in {wait_s} s." in refused.value.message
    assert headers["x-ratelimit-reset-requests"] in (f"{wait_s}s", f"{wait_s + 1}s", "1m0s")
    assert headers["x-ratelimit-remaining-requests"] == "0"

    others = await plane.raw(OTHER_KEY).chat(OTHERS_ADAPTER, stream=False)
    assert others.status == 200
    assert not any(name.startswith("x-ratelimit") for name in others.headers)
    assert plane.metrics.limit_refused.value("acme", "requests") == 1


async def test_tokens_are_those_that_answers_took_and_a_large_max_tokens_turns_nobody_away(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=having(compiled([boxes[0].url]), tokens_per_minute=1000))
    for _ in range(8):
        answer = await plane.raw().chat(ADAPTER, stream=False, max_tokens=4000)
        assert answer.status == 200
    left = int(answer.headers["x-ratelimit-remaining-tokens"])
    # What was used, and what the last one was reckoned to use.
    assert 1000 - 8 * 100 - 300 <= left < 1000
    big = await plane.raw().chat(ADAPTER, stream=False, messages=[{"role": "user", "content": "word " * 4000}])
    assert big.status == 429
    error = big.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("tokens", "rate_limit_exceeded", None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("options", [None, {"include_usage": False, "continuous_usage_stats": True}, "missing"])
async def test_a_stream_says_what_it_took_to_us_and_not_to_a_client_that_did_not_ask(
    serve: ServePlane, boxes: list[Simulator], path: str, options: Any
) -> None:
    books = accounts()
    plane = await serve([boxes[0].url], options={"accounts": books})
    body: dict[str, Any] = {"model": ADAPTER, "stream": True}
    body |= CHAT if "chat" in path else {"prompt": "hello", "max_tokens": 100}
    if options != "missing":
        body["stream_options"] = options
    answer = await plane.raw().ask(path, json.dumps(body).encode())
    assert check_stream(answer).violations == []
    assert b'"usage"' not in answer.body
    (asked,) = boxes[0].admin.requests()
    assert asked["body"]["stream_options"]["include_usage"] is True
    assert "continuous_usage_stats" not in asked["body"]["stream_options"]
    await eventually(lambda: plane.idle)
    counted = used(books, "acme", "own")
    assert (counted["requests"], counted["completion"], counted["estimated"]) == (1, TOKENS, 0)
    assert counted["prompt"] > 0


async def test_a_client_that_asks_for_usage_gets_it_once(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve([boxes[0].url])
    answer = await plane.raw().chat(ADAPTER, stream_options={"include_usage": True})
    seen = check_stream(answer)
    assert seen.violations == []
    assert sum(bool(event.get("usage")) for event in seen.events) == 1


async def test_what_a_client_that_left_was_told_is_estimated(serve: ServePlane, boxes: list[Simulator]) -> None:
    books = accounts()
    plane = await serve([boxes[0].url], options={"accounts": books})
    stream = await plane.sdk().chat.completions.create(model=ADAPTER, stream=True, **CHAT)  # type: ignore[call-overload]
    async for _ in stream:
        await stream.close()
        break
    await eventually(lambda: ("acme", "own", "none") in books.usage.total)
    counted = used(books, "acme", "own")
    assert counted["requests"] == 1
    assert counted["prompt"] > 0


async def test_what_a_provider_costs_is_counted_and_a_cap_leaves_the_next_step_to_answer(
    serve: ServePlane, hosted: Simulator
) -> None:
    books = accounts()
    step = provider_step(hosted.url, price=PRICE)
    policy = having(compiled([NO_BOX], [step, LATER]), usd_per_day=60e-6)
    plane = await serve(policy=policy, options={"accounts": books})
    served = [
        (await plane.raw().chat(ADAPTER, stream=stream)).headers["x-failsoft-served-by"]
        for stream in (True, False, True, False, True)
    ]
    assert served[0] == "provider:hosted"
    assert served[-1] == "static"
    answered = served.count("provider:hosted")
    counted = used(books, "acme", "provider:hosted")
    assert counted["requests"] == answered
    assert counted["nano_usd"] == counted["prompt"] * 1000 + counted["completion"] * 2000
    assert books.spent("acme") == counted["nano_usd"] >= 60e-6 * NANO * 0.5
    assert used(books, "acme", "static")["requests"] == len(served) - answered
    assert plane.metrics.steps_withheld.value("acme", "cap_spent") == len(served) - answered
    document = plane.dataplane.explain(policy.customers["acme"], ADAPTER, stream=True, now=0.0)
    assert any("daily cap spent" in line for line in document["left_out"])
    # Another customer has no cap.
    other = await plane.raw(OTHER_KEY).chat(OTHERS_ADAPTER, stream=False)
    assert other.headers["x-failsoft-served-by"] == "provider:hosted"
    assert books.usage.roll("2999-01-01")
    assert (await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"] == "provider:hosted"


async def test_under_a_cap_a_provider_of_unknown_price_is_not_asked(serve: ServePlane, hosted: Simulator) -> None:
    policy = having(compiled([NO_BOX], [provider_step(hosted.url)]), usd_per_day=25.0)
    plane = await serve(policy=policy)
    answer = await plane.raw().chat(ADAPTER)
    assert answer.status == 503
    assert "its price is not known" in answer.json()["error"]["message"]
    assert hosted.admin.requests() == []


async def test_no_more_requests_are_at_a_provider_than_it_may_have_and_the_next_step_answers(
    serve: ServePlane, hosted: Simulator
) -> None:
    step = provider_step(hosted.url)
    step = dataclasses.replace(step, provider=dataclasses.replace(step.provider, max_concurrency=2))
    plane = await serve([NO_BOX], step, LATER)
    crowd = await asyncio.gather(*(plane.raw().chat(ADAPTER) for _ in range(12)))
    served = [answer.headers["x-failsoft-served-by"] for answer in crowd]
    assert set(served) == {"provider:hosted", "static"}
    assert {answer.status for answer in crowd} == {200}
    assert plane.metrics.steps_withheld.value("acme", "max_concurrency") == served.count("static")
    # All that was counted there is counted back.
    await eventually(lambda: plane.idle)
    again = [(await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"] for _ in range(3)]
    assert again == ["provider:hosted"] * 3


async def test_a_provider_that_fails_holds_no_place(serve: ServePlane) -> None:
    step = provider_step(NO_BOX)
    step = dataclasses.replace(step, provider=dataclasses.replace(step.provider, max_concurrency=1))
    plane: Plane = await serve([NO_BOX], step)
    for _ in range(3):
        answer = await plane.raw().chat(ADAPTER)
        assert answer.status == 503
        assert "as many requests" not in answer.json()["error"]["message"]


async def test_who_has_its_whole_answer_may_ask_again_at_once(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED), 0.2, END)
    plane = await serve([], policy=having(compiled([box.url]), concurrency=1))
    for _ in range(3):
        async with asyncio.timeout(10):
            stream = await plane.sdk().chat.completions.create(model=ADAPTER, stream=True, **CHAT)
            assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "stop"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, (7, 3)),
        ({"prompt_tokens": 7, "total_tokens": 7}, (7, 0)),
        ({"input_tokens": 7, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3}, (7, 3)),
        # Anthropic's input is only what no cache had anything to do with.
        (
            {"input_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 3},
            (13, 3),
        ),
        ({"input_tokens": 7, "cache_read_input_tokens": None, "output_tokens": 3}, (7, 3)),
        ({"input_tokens": -7, "output_tokens": "3"}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_what_was_used_is_read_in_each_apis_words(usage: dict[str, Any], counted: tuple[int, int]) -> None:
    assert read_usage(usage) == counted
