"""What the listening side lets through, what it refuses and how, seen from raw sockets on a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.dataplane import listener
from gateway.dataplane.listener import ON_DISCONNECT, BoundedHttpProtocol, QuietServer, uvicorn_config
from tests.transport.raw_server import until_true

App = Callable[[Any, Any, Any], Awaitable[None]]
Listen = Callable[..., Awaitable[QuietServer]]


class Recorder:
    """An application that answers 200 and keeps what it was asked. A path ending in ``/hold`` waits for ``go_on``."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
        self.left: list[str] = []
        self.go_on = asyncio.Event()
        self.ended = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope[ON_DISCONNECT] = lambda: self.left.append(scope["path"])
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append((scope["method"], scope["path"], dict(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": True})
        if scope["path"].endswith("/hold"):
            await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.ended += 1


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    running: list[tuple[QuietServer, asyncio.Task[None]]] = []

    async def start(app: App, **options: Any) -> QuietServer:
        server = QuietServer(uvicorn_config(app, **{"port": 0, "shutdown_grace_s": 0.2, **options}))
        task = asyncio.get_running_loop().create_task(server.serve(options.pop("sockets", None)))
        running.append((server, task))
        started = asyncio.get_running_loop().create_task(server.started_event.wait())
        await asyncio.wait([started, task], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            running.pop()
            await task
        return server

    yield start
    for server, _ in running:
        server.should_exit = True
    await asyncio.gather(*(task for _, task in running))


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[QuietServer], Awaitable[tuple[asyncio.StreamReader, Any]]]]:
    writers: list[asyncio.StreamWriter] = []

    async def to(server: QuietServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        return reader, writer

    yield to
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


Connect = Callable[[QuietServer], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length:" in head:
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    else:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    return int(head.split()[1]), body


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and code of an answer after which the server ends the connection."""
    status, body = await answer(reader)
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert await reader.read() == b""
    return status, error["code"]


async def test_requests_pass_one_after_another_on_one_connection(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    for n in range(3):
        writer.write(b"POST /v1/%d HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}" % n)
        assert await answer(reader) == (200, b"/v1/%d" % n)
    assert [(method, path, body) for method, path, _, body in app.requests] == [
        ("POST", f"/v1/{n}", b"{}") for n in range(3)
    ]
    assert app.left == []


async def test_a_head_request_is_answered_with_a_head(listen: Listen, connect: Connect) -> None:
    reader, writer = await connect(await listen(Recorder()))
    for _ in range(2):
        writer.write(b"HEAD /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_request_may_come_byte_by_byte(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    for byte in b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await answer(reader) == (200, b"/v1/x")


async def test_a_body_far_larger_than_the_bound_on_headers_passes(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    head = b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n"
    for _ in range(2):
        writer.write(head + b"x" * 1_000_000)
        assert (await answer(reader))[0] == 200
    assert [len(body) for *_, body in app.requests] == [1_000_000] * 2


AT_BOUND = b"GET /%b HTTP/1.1\r\n" % (b"a" * (listener.MAX_TARGET_BYTES - 1))
REFUSED = {
    "a long target": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
    "a large header": (b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431, "headers_too_large"),
    "headers large in sum": (
        b"GET / HTTP/1.1\r\n" + (b"x: " + b"y" * 1000 + b"\r\n") * 40 + b"\r\n",
        431,
        "headers_too_large",
    ),
    "a header of a megabyte": (b"GET / HTTP/1.1\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
    "a bad version": (b"GET / HTTP/9.9\r\n\r\n", 400, "invalid_http"),
    "a bad header": (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "invalid_http"),
    "a path that is not ASCII": (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "invalid_http"),
    "two lengths": (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400, "invalid_http"),
    "length and chunks": (
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_http",
    ),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nhost: h\r\n\r\n", 400, "invalid_http"),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_over_a_bound_or_is_not_http_is_refused_in_the_envelope(
    listen: Listen, connect: Connect, request_bytes: bytes, status: int, code: str
) -> None:
    app = Recorder()
    server = await listen(app)
    for pieces in (1, 7):
        reader, writer = await connect(server)
        step = -(-len(request_bytes) // pieces)
        for start in range(0, len(request_bytes), step):
            writer.write(request_bytes[start : start + step])
            await asyncio.sleep(0)
        assert await refusal(reader) == (status, code)
    assert app.requests == []


async def test_a_refusal_has_the_headers_that_every_answer_has(listen: Listen, connect: Connect) -> None:
    reader, writer = await connect(await listen(Recorder()))
    writer.write(b"GET / HTTP/9.9\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    for line in ("x-failsoft-served-by: none", "x-failsoft-attempts: 0", "x-failsoft-policy: none", "x-request-id: "):
        assert f"\r\n{line}" in head


async def test_what_is_just_within_the_bounds_passes(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    writer.write(AT_BOUND + b"x: y\r\n" * 99 + b"z: " + b"a" * 20_000 + b"\r\n\r\n")
    assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("start", "more", "expected"),
    [
        (b"GET /", b"a" * 1000, (414, "uri_too_long")),
        (b"GET / HTTP/1.1\r\nx: ", b"a" * 1000, (431, "headers_too_large")),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 5, (431, "headers_too_large")),
        (b"", b"\r\n" * 500, (431, "headers_too_large")),
    ],
    ids=["request line", "header", "headers", "blank lines"],
)
async def test_a_head_that_never_ends_is_cut_off(
    listen: Listen, connect: Connect, start: bytes, more: bytes, expected: tuple[int, str]
) -> None:
    reader, writer = await connect(await listen(Recorder()))
    writer.write(start)
    refused = asyncio.get_running_loop().create_task(refusal(reader))
    sent = 0
    while not refused.done() and sent < 10_000_000:
        with contextlib.suppress(ConnectionError):
            writer.write(more)
            await writer.drain()
        sent += len(more)
        if reader.at_eof():
            break
        await asyncio.sleep(0)
    writer.close()
    assert await refused == expected
    assert sent < 10_000_000


async def test_a_head_that_is_not_complete_in_time_loses_its_connection(
    listen: Listen, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEAD_TIMEOUT_S", 0.05)
    app = Recorder()
    server = await listen(app)
    silent, slow, good = [await connect(server) for _ in range(3)]
    slow[1].write(b"GET / HTTP/1.1\r\nhost:")
    good[1].write(b"GET /v1/hold HTTP/1.1\r\n\r\n")
    assert await slow[0].read() == b""
    assert await silent[0].read() == b""
    await until_true(lambda: len(app.requests) == 1)
    app.go_on.set()
    assert await answer(good[0]) == (200, b"/v1/hold")
    # The same on a connection that has served a request; but not for one that is merely idle.
    await asyncio.sleep(0.1)
    good[1].write(b"GET / HTTP")
    assert await good[0].read() == b""


async def test_a_connection_that_lies_idle_for_the_keep_alive_time_is_closed(listen: Listen, connect: Connect) -> None:
    reader, writer = await connect(await listen(Recorder(), keep_alive_s=0.1))
    for path in (b"first", b"second"):
        writer.write(b"GET /v1/%b HTTP/1.1\r\nhost: h\r\n\r\n" % path)
        assert await answer(reader) == (200, b"/v1/" + path)
    async with asyncio.timeout(10):
        assert await reader.read() == b""


async def test_a_connection_is_not_idle_while_its_answer_is_on_its_way(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app, keep_alive_s=0.1))
    _, other = idle = await connect(await listen(app, keep_alive_s=0.3))
    for client, path in ((writer, b"short"), (other, b"short"), (writer, b"hold")):
        client.write(b"GET /v1/%b HTTP/1.1\r\nhost: h\r\n\r\n" % path)
    assert await answer(reader) == (200, b"/v1/short")
    # The other connection was last used no later than this one, and has a longer keep-alive time.
    await answer(idle[0])
    async with asyncio.timeout(10):
        assert await idle[0].read() == b""
    app.go_on.set()
    assert await answer(reader) == (200, b"/v1/hold")


async def test_the_application_is_told_once_when_its_client_leaves(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    server = await listen(app)
    _, writer = await connect(server)
    writer.write(b"GET /v1/hold HTTP/1.1\r\n\r\n")
    await until_true(lambda: len(app.requests) == 1)
    writer.transport.abort()
    await until_true(lambda: app.left == ["/v1/hold"])
    app.go_on.set()
    await until_true(lambda: app.ended == 1)
    assert app.left == ["/v1/hold"]


async def test_the_application_is_not_told_of_a_client_that_leaves_after_its_answer(
    listen: Listen, connect: Connect
) -> None:
    app = Recorder()
    server = await listen(app)
    reader, writer = await connect(server)
    writer.write(b"GET /v1/x HTTP/1.1\r\n\r\n")
    assert (await answer(reader))[0] == 200
    writer.close()
    await until_true(lambda: not server.server_state.connections)
    assert app.left == []


async def test_of_pipelined_requests_the_one_being_answered_is_told(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    server = await listen(app)
    reader, writer = await connect(server)
    writer.write(b"".join(b"GET /v1/%b HTTP/1.1\r\n\r\n" % name for name in (b"first", b"hold", b"last")))
    assert await answer(reader) == (200, b"/v1/first")
    await until_true(lambda: len(app.requests) == 2)
    # Reading is paused while requests wait in the pipeline, so the end shows when the answer cannot be written.
    (protocol,) = server.server_state.connections
    assert isinstance(protocol, BoundedHttpProtocol)
    protocol.transport.abort()
    await until_true(lambda: app.left == ["/v1/hold"])
    app.go_on.set()
    await until_true(lambda: app.ended == 2)
    assert [path for _, path, _, _ in app.requests] == ["/v1/first", "/v1/hold"]


async def test_garbage_behind_a_request_never_gets_into_its_answer(listen: Listen, connect: Connect) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    writer.write(b"GET /v1/hold HTTP/1.1\r\n\r\n")
    await until_true(lambda: len(app.requests) == 1)
    writer.write(b"\x00garbage\r\n\r\n")
    await until_true(lambda: app.left == ["/v1/hold"])
    app.go_on.set()
    assert b"HTTP/1.1 400" not in await reader.read()


@pytest.mark.parametrize("together", [True, False])
async def test_a_request_to_upgrade_is_served_as_the_plain_request_that_it_is(
    listen: Listen, connect: Connect, together: bool
) -> None:
    app = Recorder()
    reader, writer = await connect(await listen(app))
    head = (
        b"POST /v1/x?y=1 HTTP/1.1\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\nhost: h\r\ncontent-length: 9\r\n\r\n"
    )
    writer.write(head + b"the " if together else head)
    await asyncio.sleep(0.02)
    writer.write(b"body!" if together else b"the body!")
    assert await answer(reader) == (200, b"/v1/x")
    writer.write(b"GET /v1/next HTTP/1.1\r\nhost: h\r\n\r\n")
    assert await answer(reader) == (200, b"/v1/next")
    assert app.requests[0] == ("POST", "/v1/x", {b"host": b"h", b"content-length": b"9"}, b"the body!")


async def test_two_servers_share_a_loop_and_leave_signals_alone(listen: Listen, connect: Connect) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    app = Recorder()
    servers = [await listen(app) for _ in range(2)]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    for server in servers:
        reader, writer = await connect(server)
        writer.write(b"GET /v1/x HTTP/1.1\r\n\r\n")
        assert (await answer(reader))[0] == 200


async def test_a_server_listens_on_a_unix_socket_or_on_one_that_it_is_given(listen: Listen, tmp_path: Path) -> None:
    app = Recorder()
    await listen(app, uds=str(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(b"GET /v1/uds HTTP/1.1\r\n\r\n")
    assert await answer(reader) == (200, b"/v1/uds")
    writer.close()
    await writer.wait_closed()
    assert app.requests[0][1] == "/v1/uds"


async def test_a_port_that_is_taken_is_an_error_and_not_the_end_of_the_process(listen: Listen) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await listen(Recorder(), port=taken.getsockname()[1])


async def test_a_server_told_to_exit_lets_a_running_answer_end_within_its_grace(
    listen: Listen, connect: Connect
) -> None:
    app = Recorder()
    server = await listen(app, shutdown_grace_s=5.0)
    reader, writer = await connect(server)
    writer.write(b"GET /v1/hold HTTP/1.1\r\n\r\n")
    await until_true(lambda: len(app.requests) == 1)
    server.should_exit = True
    await until_true(lambda: not server.servers[0].is_serving())
    app.go_on.set()
    assert await answer(reader) == (200, b"/v1/hold")
    assert await reader.read() == b""
