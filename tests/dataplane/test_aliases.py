"""Agents that ask for an alias, through the SDK: what they get, what boxes see, and what changes under them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import openai
import pytest

from gateway.policy.alias import Alias
from gateway.policy.compiled import ApiKey, CompiledPolicy, CustomerPolicy, StaticStep, Step
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, NEXT_ADAPTER, OTHER_KEY, Plane, compiled, provider_step
from tests.support.checker import check_error, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator

ALIAS = "acme"


def policy(
    boxes: list[Simulator], target: str | Mapping[str, int], *steps: Step, version: int = 7, **durations: float
) -> CompiledPolicy:
    """``acme`` with two adapters and an alias for them."""
    plain = compiled([box.url for box in boxes], steps, version=version, **durations)
    acme = replace(
        plain.customers["acme"],
        adapters=frozenset({ADAPTER, NEXT_ADAPTER}),
        aliases={ALIAS: Alias.of("acme", ALIAS, target)},
    )

    def owner(customer: CustomerPolicy) -> CustomerPolicy:
        return acme if customer.name == "acme" else customer

    keys = {digest: ApiKey(digest, owner(key.customer)) for digest, key in plain.keys.items()}
    return replace(plain, customers=plain.customers | {"acme": acme}, keys=keys)


def split(v4: int) -> dict[str, int]:
    return {ADAPTER: 100 - v4, NEXT_ADAPTER: v4}


def asked(boxes: list[Simulator]) -> list[dict[str, Any]]:
    return [one for box in boxes for one in box.admin.requests(path="/v1/chat/completions")]


async def say(client: openai.AsyncOpenAI, *texts: str, **more: Any) -> str:
    """The model that answers a conversation of the user's ``texts``."""
    messages: list[Any] = [{"role": "system", "content": "You are Acme's agent."}]
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "Hm."}]
    answer = await client.chat.completions.create(model=ALIAS, messages=messages[:-1], **more)
    return answer.model


async def test_an_alias_is_answered_by_its_adapter_and_the_answer_says_which(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=policy(boxes, NEXT_ADAPTER))
    client = plane.sdk()
    raw = await client.chat.completions.with_raw_response.create(
        model=ALIAS, messages=[{"role": "user", "content": "hello"}]
    )
    assert raw.parse().model == NEXT_ADAPTER
    assert raw.headers["x-failsoft-served-by"].startswith("box:")
    assert "x-failsoft-degraded" not in raw.headers
    stream = await client.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert {chunk.model async for chunk in stream} == {NEXT_ADAPTER}
    completion = await client.completions.create(model=ALIAS, prompt="hello")
    assert completion.model == NEXT_ADAPTER
    assert plane.metrics.alias_requests.value("acme", ALIAS, NEXT_ADAPTER) == 3
    assert plane.metrics.requests.value("acme", "box", "none") == 3


async def test_boxes_get_the_body_as_it_came_but_for_the_name_and_untouched_without_an_alias(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=policy(boxes, NEXT_ADAPTER))
    body = (
        b'{"model" : "%b", "seed": 12345678901234567890123, "messages": [{"role":"user","content":"\\u00e9"}], "n":1}'
    )
    for model in (ALIAS, ADAPTER):
        raw = _http(plane, body % model.encode())
        assert (await plane.raw().ask("", raw=raw)).status == 200
    renamed, untouched = asked(boxes)
    if renamed["model"] == ADAPTER:
        renamed, untouched = untouched, renamed
    for seen, model in ((renamed, NEXT_ADAPTER), (untouched, ADAPTER)):
        sent = body % model.encode()
        assert (seen["body_bytes"], seen["body"]) == (len(sent), json.loads(sent))


def _http(plane: Plane, body: bytes) -> bytes:
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer fs-acme-key\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


async def test_a_conversation_keeps_its_version_while_conversations_are_split(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=policy(boxes, split(50)))
    client = plane.sdk()
    first = {talk: await say(client, f"Order {talk}?") for talk in range(24)}
    assert set(first.values()) == {ADAPTER, NEXT_ADAPTER}
    for talk, model in first.items():
        assert await say(client, f"Order {talk}?", "And now?", "Thanks.") == model
        assert await say(client, f"Order {talk}?", max_tokens=3, temperature=0.5) == model


async def test_a_client_may_name_its_conversation_itself(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(policy=policy(boxes, split(50)))
    client = plane.sdk()

    async def in_talk(talk: int, text: str) -> str:
        return await say(client, text, extra_headers={"x-failsoft-conversation": f"talk-{talk}"})

    first = [await in_talk(talk, "hello") for talk in range(12)]
    assert set(first) == {ADAPTER, NEXT_ADAPTER}
    assert [await in_talk(talk, "something else") for talk in range(12)] == first


async def test_models_lists_aliases_beside_adapters_and_of_nobody_else(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=policy(boxes, split(5)))
    own = plane.sdk()
    assert [model.id async for model in own.models.list()] == sorted([ADAPTER, NEXT_ADAPTER, ALIAS])
    found = (await own.models.retrieve(ALIAS)).model_dump()
    assert (found["id"], found["root"], found["parent"]) == (ALIAS, ADAPTER, "base")

    other = plane.raw(OTHER_KEY)
    answers = [await other.chat(model) for model in (ALIAS, ADAPTER, "nobodys")]
    answers += [await other.ask(f"/v1/models/{model}") for model in (ALIAS, ADAPTER, "nobodys")]
    names = (ALIAS, ADAPTER, "nobodys") * 2
    for answer in answers:
        assert (answer.status, check_error(answer).violations) == (404, [])
    told = {answer.body.replace(name.encode(), b"NAME") for answer, name in zip(answers, names, strict=True)}
    assert len(told) == 1
    assert not asked(boxes)


async def test_degraded_answers_name_the_alias_as_what_was_requested(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    for box in boxes:
        box.admin.fault("status", status=503)
    plane = await serve(policy=policy(boxes, split(50), provider_step(hosted.url)))
    answer = await plane.raw().chat(ALIAS, stream=False)
    degraded = answer.json()["degraded"]
    assert (degraded["requested_model"], degraded["served_model"]) == (ALIAS, GENERIC_MODEL)
    (sent,) = hosted.admin.requests()
    assert sent["model"] == GENERIC_MODEL


async def test_a_version_that_boxes_lack_is_stood_in_for_by_the_other_and_then_by_the_fallback(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    for box in boxes:
        box.admin.fault("adapter_missing", adapter=NEXT_ADAPTER)
    plane = await serve(policy=policy(boxes, {ADAPTER: 1, NEXT_ADAPTER: 999_999}, StaticStep("reduced")))
    for stream in (True, False):
        answer = await plane.raw().chat(ALIAS, stream=stream)
        assert answer.status == 200
        assert b"reduced" not in answer.body
        assert "x-failsoft-degraded" not in answer.headers
    assert plane.metrics.alias_requests.value("acme", ALIAS, NEXT_ADAPTER) == 2
    assert plane.metrics.alias_stand_ins.value("acme", ALIAS, ADAPTER) == 2
    # It is known by now that both lack it: the second request asked neither.
    assert [one["model"] for one in sorted(asked(boxes), key=lambda one: one["started_monotonic"])] == [
        NEXT_ADAPTER, NEXT_ADAPTER, ADAPTER, ADAPTER,
    ]  # fmt: skip
    assert {alarm.kind for alarm in plane.alarms.current()} == {"adapter_missing"}

    for box in boxes:
        box.admin.fault("adapter_missing")
    answer = await plane.raw().chat(ALIAS)
    assert check_stream(answer, text="reduced").whole
    assert answer.headers["x-failsoft-degraded"] == "adapter_unavailable"


async def test_a_version_of_weight_0_is_not_stood_in_with(serve: ServePlane, boxes: list[Simulator]) -> None:
    for box in boxes:
        box.admin.fault("adapter_missing", adapter=NEXT_ADAPTER)
    plane = await serve(policy=policy(boxes, split(100), StaticStep("reduced")))
    assert (await plane.raw().chat(ALIAS)).headers["x-failsoft-degraded"] == "adapter_unavailable"


@pytest.mark.parametrize("target", [ADAPTER, split(50)], ids=["one", "split"])
async def test_a_body_that_is_no_conversation_is_refused_by_the_box_and_nobody_else(
    serve: ServePlane, boxes: list[Simulator], target: str | dict[str, int]
) -> None:
    plane = await serve(policy=policy(boxes, target))
    answer = await plane.raw().ask("/v1/chat/completions", {"model": ALIAS, "messages": "no list"})
    assert (answer.status, check_error(answer).violations) == (400, [])
    assert len(asked(boxes)) == 1


async def test_v4_goes_live_and_back_while_agents_ask_and_nobody_notices(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(policy=policy(boxes, split(0)))
    client = plane.sdk()
    names = {f"agent {number}" for number in range(12)}
    # By policy version: what answered each conversation.
    seen: dict[int, dict[str, set[str]]] = {version: {} for version in range(7, 12)}
    stop = asyncio.Event()

    async def agent(name: str) -> None:
        history: list[Any] = [{"role": "user", "content": f"I am {name}."}]
        while not stop.is_set():
            raw = await client.chat.completions.with_raw_response.create(model=ALIAS, messages=history)
            seen[int(raw.headers["x-failsoft-policy"])].setdefault(name, set()).add(raw.parse().model)
            said = {"role": "assistant", "content": raw.parse().choices[0].message.content}
            history = [*history[:9], said, {"role": "user", "content": "And then?"}]

    async with asyncio.TaskGroup() as agents:
        for name in names:
            agents.create_task(agent(name))
        for version, v4 in enumerate((0, 5, 50, 100, 0), 7):
            plane.change(policy(boxes, split(v4), version=version))
            await eventually(lambda under=version: seen[under].keys() == names, within_s=60)  # type: ignore[misc]
        stop.set()

    assert all(len(models) == 1 for under in seen.values() for models in under.values()), "a conversation sticks"
    on_v4 = [{name for name, models in under.items() if NEXT_ADAPTER in models} for under in seen.values()]
    assert not on_v4[0]
    assert on_v4[1] <= on_v4[2] < on_v4[3] == names
    assert not on_v4[4]
