"""What a client hears that asks for something that cannot be: always OpenAI's envelope, always what to change."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import hashlib
import json
from typing import Any

import openai
import pytest

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY, OTHER_KEY, OTHERS_ADAPTER, compiled, provider_step
from tests.dataplane.scripted_box import whole
from tests.support.checker import check_error
from tests.support.processes import Simulator
from tests.support.raw_client import RawClient, Recording

CHAT = "/v1/chat/completions"
NO_BOX = "http://127.0.0.1:1"
LIMIT = 200_000


def judged(answer: Recording, status: int) -> dict[str, Any]:
    """The error of an answer that is one, with the headers that every answer has."""
    seen = check_error(answer)
    assert seen.violations == []
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-failsoft-served-by"] == "none"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-failsoft-policy"] == "7"
    assert seen.error is not None
    return seen.error


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"{", "not valid JSON", None),
        (b"", "not valid JSON", None),
        (b"[1]", "must be a JSON object", None),
        (b"{}", "`model` is missing", "model"),
        (b'{"model":null}', "`model` has the wrong type", "model"),
        (b'{"model":""}', "`model` is empty", "model"),
        (b'{"model":"acme_v3","x":' + b"[" * 3000 + b"]" * 3000 + b"}", "nested too deeply", None),
        (b'{"model":"acme_v3","stream":"yes"}', "`stream` has the wrong type", "stream"),
    ],
)
async def test_a_body_that_cannot_be_used_is_a_400_that_says_why(
    serve: ServePlane, body: bytes, says: str, param: str | None
) -> None:
    plane = await serve([NO_BOX], StaticStep("x"))
    error = judged(await plane.raw().ask(CHAT, body), 400)
    assert says in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("request_line", "key", "status"),
    [
        (f"POST {CHAT}", "wrong", 401),
        ("POST /v1/nothing", KEY, 404),
        (f"DELETE {CHAT}", KEY, 405),
        ("POST /v1/models", KEY, 405),
    ],
)
@pytest.mark.parametrize("length", ["content-length: 100000000000", "transfer-encoding: chunked"])
async def test_a_body_that_nobody_wants_is_not_read_to_its_end(
    serve: ServePlane, request_line: str, key: str, status: int, length: str
) -> None:
    plane = await serve([NO_BOX], StaticStep("x"))
    raw = f"{request_line} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n{length}\r\n\r\n"
    answer = await plane.raw().ask(CHAT, raw=raw.encode())
    judged(answer, status)
    assert answer.headers["connection"] == "close"


async def test_a_wrong_key_or_path_costs_no_connection_when_the_body_is_small(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep("x"))
    for path, key, status in ((CHAT, "wrong", 401), ("/v1/nothing", KEY, 404)):
        answer = await plane.raw(key).ask(path, {"model": ADAPTER, "messages": []})
        judged(answer, status)
        assert "connection" not in answer.headers


async def test_another_method_is_told_which_is_allowed(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep("x"))
    answer = await plane.raw().ask(CHAT, method="GET")
    assert judged(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST, OPTIONS"


async def test_another_customers_adapter_and_one_that_nobody_has_get_the_same_404(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(boxes)
    theirs = await plane.raw().chat(OTHERS_ADAPTER, stream=False)
    unknown = await plane.raw().chat("globex_v9", stream=False)
    assert judged(theirs, 404)["code"] == "model_not_found"
    assert theirs.body.replace(OTHERS_ADAPTER.encode(), b"globex_v9") == unknown.body

    def rest(answer: Recording) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name != "x-request-id"}

    assert rest(theirs) == rest(unknown)
    assert [r for box in boxes for r in box.admin.requests()] == []
    assert (await plane.raw(OTHER_KEY).chat(OTHERS_ADAPTER, stream=False)).status == 200


async def test_the_bases_own_name_is_no_way_round_the_adapter(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    judged(await plane.raw().chat("base", stream=False), 404)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"acme_v3","model":"globex_v1","messages":[]}',
        b'{"model":"acme_v3","mod\\u0065l":"globex_v1","messages":[]}',
    ],
)
async def test_a_second_model_in_one_body_opens_no_way_to_it(serve: ServePlane, body: bytes) -> None:
    # Python's json, which vLLM reads with, takes the last of two equal keys: so has the gateway to.
    plane = await serve([NO_BOX])
    assert json.loads(body)["model"] == OTHERS_ADAPTER
    judged(await plane.raw().ask(CHAT, body), 404)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", f"Token {KEY}"])
async def test_without_a_valid_key_nothing_is_answered(serve: ServePlane, authorization: str | None) -> None:
    plane = await serve([NO_BOX], StaticStep("x"))
    headers = {} if authorization is None else {"authorization": authorization}
    client = RawClient(plane.url)
    for path, body in ((CHAT, {"model": ADAPTER, "messages": []}), ("/v1/models", None)):
        error = judged(await client.ask(path, body, headers=headers), 401)
        assert error["code"] in ("missing_api_key", "invalid_api_key")


@pytest.mark.parametrize(("days", "status"), [(-1, 401), (0, 503), (1, 503)])
async def test_a_key_is_valid_until_the_end_of_its_last_day(serve: ServePlane, days: int, status: int) -> None:
    policy = compiled([NO_BOX])
    digest = hashlib.sha256(KEY.encode()).digest()
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=days)
    dated = dataclasses.replace(policy.keys[digest], expires=expires)
    plane = await serve(policy=dataclasses.replace(policy, keys={**policy.keys, digest: dated}))
    judged(await plane.raw().chat(ADAPTER), status)


async def test_what_is_not_served_here_is_a_404_and_the_wrong_method_a_405(serve: ServePlane) -> None:
    plane = await serve([NO_BOX])
    for path in ("/v1/", "/v1/nothing", "/v1/chat/completions/", "/v1//chat/completions"):
        judged(await plane.raw().ask(path, {"model": ADAPTER}), 404)
    judged(await plane.raw().ask(CHAT, method="GET"), 405)
    judged(await plane.raw().ask("/v1/models", {}), 405)


async def test_a_body_over_the_limit_is_a_413_that_a_client_reads_while_it_still_sends(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], options={"body_limit": LIMIT})
    too_much = b'{"model":"acme_v3","messages":["' + b"x" * 20 * LIMIT + b'"]}'
    by_length = await plane.raw().ask(CHAT, too_much)
    assert judged(by_length, 413)["code"] == "request_too_large"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (LIMIT // 4, b"x" * (LIMIT // 4))
    by_chunks = await plane.raw().ask(CHAT, raw=head.encode() + piece * 40 + b"0\r\n\r\n")
    assert judged(by_chunks, 413)["code"] == "request_too_large"
    with pytest.raises(openai.APIStatusError) as caught:
        await plane.sdk().chat.completions.create(
            model=ADAPTER, messages=[{"role": "user", "content": "x" * 20 * LIMIT}]
        )
    assert caught.value.status_code == 413


async def test_a_body_of_just_the_limit_is_taken(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep("later"), options={"body_limit": LIMIT})
    start, end = b'{"model":"acme_v3","messages":["', b'"]}'
    body = start + b"x" * (LIMIT - len(start) - len(end)) + end
    assert (await plane.raw().ask(CHAT, body)).status == 200
    assert (await plane.raw().ask(CHAT, body + b" ")).status == 413


async def test_a_compressed_body_is_a_415_that_says_to_send_it_plain(serve: ServePlane) -> None:
    plane = await serve([NO_BOX])
    answer = await plane.raw().ask(CHAT, b"\x1f\x8b" + b"x" * 100, headers={"content-encoding": "gzip"})
    assert "uncompressed" in judged(answer, 415)["message"]


async def test_when_nothing_can_answer_there_is_one_503_that_says_what_was_tried(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    for box in boxes:
        box.admin.fault("status", status=500, message=f"traceback of {box.url}")
    hosted.admin.fault("status", status=401, message="Incorrect API key provided: sk-of-the-provider.")
    plane = await serve(boxes, provider_step(hosted.url))
    for stream in (False, True):
        answer = await plane.raw().chat(ADAPTER, stream=stream)
        error = judged(answer, 503)
        assert 0 < int(answer.headers["retry-after"]) <= 30
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-failsoft-attempts"] == "3"
        for tried in ("box:a: status 500", "box:b: status 500", "provider:hosted: status 401"):
            assert tried in error["message"]
        for secret in ("127.0.0.1", "http", "traceback", "sk-"):
            assert secret not in error["message"]
        assert "x-failsoft-degraded" not in answer.headers
    with pytest.raises(openai.InternalServerError) as caught:
        await plane.sdk().chat.completions.create(model=ADAPTER, messages=[])
    assert caught.value.status_code == 503


async def test_the_sdk_does_not_come_back_for_what_was_tried(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(whole(b"{}", status=429))
    plane = await serve([box])
    client = plane.sdk().with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model=ADAPTER, messages=[])
    assert len(box.requests) == 1


@pytest.mark.parametrize("broken", [b'"\xff"', b"1e999"])
@pytest.mark.parametrize("step", [StaticStep("x"), provider_step("http://127.0.0.1:1")], ids=["static", "provider"])
async def test_what_turns_out_to_be_no_json_only_on_the_way_is_a_400_too(
    serve: ServePlane, broken: bytes, step: Any
) -> None:
    plane = await serve([NO_BOX], step)
    answer = await plane.raw().ask(CHAT, b'{"model":"acme_v3","messages":[],"x":' + broken + b"}")
    judged(answer, 400)
    assert answer.headers["x-failsoft-attempts"] == "1"
    assert plane.idle
    assert plane.alarms.current() == ()


async def test_the_models_are_the_callers_own(serve: ServePlane) -> None:
    plane = await serve([NO_BOX])
    assert [model.id async for model in plane.sdk().models.list()] == [ADAPTER]
    assert [model.id async for model in plane.sdk(OTHER_KEY).models.list()] == [OTHERS_ADAPTER]
    mine = await plane.sdk().models.retrieve(ADAPTER)
    assert (mine.id, mine.owned_by, mine.created) == (ADAPTER, "acme", 1_700_000_000)
    with pytest.raises(openai.NotFoundError):
        await plane.sdk().models.retrieve(OTHERS_ADAPTER)
    theirs = await plane.raw().ask(f"/v1/models/{OTHERS_ADAPTER}")
    unknown = await plane.raw().ask("/v1/models/globex_v9")
    assert theirs.body.replace(OTHERS_ADAPTER.encode(), b"globex_v9") == unknown.body


async def test_before_the_first_policy_there_is_a_503_and_not_a_401(serve: ServePlane) -> None:
    plane = await serve([NO_BOX])
    plane.current = None  # type: ignore[assignment]
    answer = await plane.raw().chat(ADAPTER)
    assert (answer.status, answer.headers["x-failsoft-policy"]) == (503, "none")
    assert check_error(answer).violations == []


async def test_a_defect_of_ours_is_a_500_in_the_envelope_and_an_alarm(
    serve: ServePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = await serve([NO_BOX])

    def broken(fleet: str, adapter: str) -> Any:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(plane.fleets, "boxes_for", broken)
    error = judged(await plane.raw().chat(ADAPTER), 500)
    assert "secret" not in error["message"]
    assert [alarm.kind for alarm in plane.alarms.current()] == ["internal_error"]
    await asyncio.sleep(0)
    assert plane.dataplane.in_flight == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"detail":"Not Found"}', "not_served"),
        (b'{"error":{"message":"Tool `x` was not found.","type":"NotFoundError","param":"tools","code":404}}', 404),
    ],
)
async def test_a_404_that_is_not_about_the_model_is_passed_on_and_no_adapter_is_missing(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator, stream: bool, body: bytes, code: object
) -> None:
    box = await scripted(whole(body, status=404))
    plane = await serve([box.url, box.url], provider_step(hosted.url))
    for _ in range(4):
        answer = await plane.raw().chat(ADAPTER, stream=stream)
        assert judged(answer, 404)["code"] == code
    assert len(box.requests) == 4, "no other box is asked"
    assert hosted.admin.requests() == []
    assert not plane.alarms.current()
    assert all(box.condition(ADAPTER, 0.0) is None for box in plane.fleets.all())
