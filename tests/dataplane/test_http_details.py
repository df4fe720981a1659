"""What HTTP itself allows a client to ask, and what the answer then is."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import Connect, ServePlane
from tests.dataplane.plane import ADAPTER, KEY
from tests.support.processes import Simulator

NO_BOX = "http://127.0.0.1:1"
POSTED = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"]
READ = ["/v1/models", f"/v1/models/{ADAPTER}"]


def client(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False)


@pytest.mark.parametrize("path", [*POSTED, *READ])
async def test_options_say_what_a_path_takes_and_nothing_of_other_origins(serve: ServePlane, path: str) -> None:
    plane = await serve([NO_BOX])
    preflight = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    async with httpx2.AsyncClient(base_url=plane.url, trust_env=False) as asking:  # as a browser: without a key
        answer = await asking.options(path, headers=preflight)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == ("POST, OPTIONS" if path in POSTED else "GET, HEAD, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", READ)
async def test_a_request_from_another_origin_gets_no_leave_to_be_read(serve: ServePlane, path: str) -> None:
    plane = await serve([NO_BOX])
    async with client(plane.url) as asking:
        answer = await asking.get(path, headers={"origin": "https://example.org"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


ORIGIN = "https://chat.example.com"


@pytest.mark.parametrize("path", [*POSTED, *READ])
async def test_pages_of_an_origin_that_is_named_may_ask_and_read_what_matters(serve: ServePlane, path: str) -> None:
    plane = await serve([NO_BOX], options={"cors_origins": [ORIGIN]})
    wanted = "authorization,content-type,x-stainless-lang"
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": wanted,
    }
    async with client(plane.url) as asking:
        leave = await asking.options(path, headers=preflight)
        answer = await asking.request("POST" if path in POSTED else "GET", path, json={}, headers={"origin": ORIGIN})
    assert leave.status_code == 204
    assert leave.headers["access-control-allow-methods"] == leave.headers["allow"]
    assert leave.headers["access-control-allow-headers"] == wanted
    # Of its mistakes a page is to hear, too.
    assert answer.status_code == (400 if path in POSTED else 200)
    readable = answer.headers["access-control-expose-headers"].split(", ")
    assert {name for name in answer.headers if name.startswith("x-failsoft-")} <= set(readable)
    for one in (leave, answer):
        assert one.headers["access-control-allow-origin"] == ORIGIN
        assert one.headers["vary"] == "origin"
        # A page has the key that it was given, and no browser adds any by itself.
        assert "access-control-allow-credentials" not in one.headers


async def test_a_page_reads_a_stream_and_its_marks(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep("reduced"), options={"cors_origins": [ORIGIN]})
    answer = await plane.raw().chat(ADAPTER, headers={"origin": ORIGIN})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "x-failsoft-degraded" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://example.org", f"{ORIGIN}:8443", f"{ORIGIN}.example.org", "null", "*", ""])
async def test_pages_of_any_other_origin_still_may_not(serve: ServePlane, origin: str) -> None:
    plane = await serve([NO_BOX], options={"cors_origins": [ORIGIN]})
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x"}
    async with client(plane.url) as asking:
        for answer in (
            await asking.options("/v1/chat/completions", headers=asked),
            await asking.get("/v1/models", headers={"origin": origin}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert answer.headers["vary"] == "origin", "or a cache would tell it what another one was told"


@pytest.mark.parametrize("path", READ)
async def test_head_is_get_without_its_body(serve: ServePlane, path: str) -> None:
    plane = await serve([NO_BOX])
    async with client(plane.url) as asking:
        got = await asking.get(path)
        for _ in range(2):  # over one connection, which the missing body does not upset
            answer = await asking.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-length"] == got.headers["content-length"]
            assert answer.headers["content-type"] == "application/json"
        assert (await asking.head("/v1/models/nobodys")).status_code == 404


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_any_other_method_is_told_which_are_allowed(serve: ServePlane, path: str, method: str) -> None:
    plane = await serve([NO_BOX])
    async with client(plane.url) as asking:
        answer = await asking.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert answer.headers["x-failsoft-served-by"] == "none"


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize", "/detokenize", "/v1/responses/resp_1", "/v1/messages/"])
async def test_what_is_not_on_the_list_is_not_there(serve: ServePlane, boxes: list[Simulator], path: str) -> None:
    plane = await serve(boxes)
    for method in ("GET", "POST", "OPTIONS"):
        assert (await plane.raw().ask(path, {"prompt": "x"}, method=method)).status == 404
    assert [entry for box in boxes for entry in box.admin.requests()] == []


@pytest.mark.parametrize("wish", ["gzip, deflate, br, zstd", "identity", "*;q=0", ""])
@pytest.mark.parametrize("stream", [True, False])
async def test_answers_are_not_compressed_whatever_is_accepted(
    serve: ServePlane, boxes: list[Simulator], wish: str, stream: bool
) -> None:
    """A compressed stream comes in blocks, not in tokens; and boxes are asked for what can be checked."""
    plane = await serve(boxes)
    answer = await plane.raw().chat(ADAPTER, stream=stream, headers={"accept-encoding": wish})
    assert answer.status == 200
    assert "content-encoding" not in answer.headers
    sent = [entry for box in boxes for entry in box.admin.requests()]
    assert {entry["headers"]["accept-encoding"] for entry in sent} == {"identity"}


def _expecting(path: str, body: bytes, key: str = KEY, length: int | None = None) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: gateway",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(body) if length is None else length}",
        "expect: 100-continue",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_who_waits_for_leave_to_send_its_body_gets_it(
    serve: ServePlane, boxes: list[Simulator], connect: Connect, path: str
) -> None:
    plane = await serve(boxes)
    reader, writer = await connect(plane)
    body = b'{"model":"%b","input":"hi","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}' % ADAPTER.encode()
    writer.write(_expecting(path, body))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("key", "length", "status"), [("wrong", None, b"401"), (KEY, 1 << 40, b"413")])
async def test_who_would_be_refused_anyway_hears_so_before_it_sends(
    serve: ServePlane, connect: Connect, key: str, length: int | None, status: bytes
) -> None:
    plane = await serve([NO_BOX])
    reader, writer = await connect(plane)
    writer.write(_expecting("/v1/chat/completions", b"{}", key, length))
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(("sent", "kept"), [("mine-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
async def test_a_clients_own_request_id_is_kept_where_it_is_one(
    serve: ServePlane, path: str, sent: str, kept: bool
) -> None:
    plane = await serve([NO_BOX])
    for body in ({"model": ADAPTER, "input": "x", "prompt": "x", "messages": []}, {"model": "nobodys"}, b"{"):
        answer = await plane.raw().ask(path, body, headers={"x-request-id": sent})
        assert (answer.headers["x-request-id"] == sent) == kept
        assert answer.headers["x-request-id"]
