"""What is not for the data plane, answered by the watcher for every worker: its ASGI application, over a line.

A worker takes the connection, as all share one port, and hands on what it is asked. So every answer is the whole
gateway's. A line of its own, which no long answer on it holds up.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from typing import Any

from gateway.dataplane.listener import ON_DISCONNECT
from gateway.tasks import TaskSet
from gateway.workers.line import Line
from gateway.workers.messages import Message

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 1 << 20
"""Of a request to the control plane, which takes hardly any."""

_SCOPE = ("client", "method", "path", "query_string", "http_version", "scheme", "root_path")

_AWAY = b'{"error":{"message":"The gateway is ending.","type":"server_error","param":null,"code":null}}'
_TOO_LARGE = b'{"error":{"message":"The body is too large.","type":"invalid_request_error","param":null,"code":null}}'


class Asked(Message):
    """A client's request, whole. ``headers``: as ASGI has them."""

    id: int
    scope: dict[str, Any]
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Gone(Message):
    """That client has left."""

    id: int


class AnswerBegins(Message):
    """The head of the answer."""

    id: int
    status: int
    headers: list[tuple[bytes, bytes]]


class AnswerGoesOn(Message):
    """A part of its body."""

    id: int
    body: bytes
    more: bool


class ControlDesk:
    """The watcher's end: answers with ``app``."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._tasks = TaskSet()
        self._asked: dict[int, asyncio.Event] = {}
        self._line = Line(Asked | Gone, on_message=self._take, on_end=self._ended)

    async def open(self, end: socket.socket) -> None:
        """Use this end of a socket pair."""
        await self._line.open(end)

    async def close(self) -> None:
        """Answer nobody any more."""
        await self._tasks.close()
        self._line.close()

    def _take(self, told: Asked | Gone) -> None:
        if isinstance(told, Asked):
            left = self._asked[told.id] = asyncio.Event()
            self._tasks.spawn(self._answer(told, left), name="a request to the control plane")
        elif (known := self._asked.get(told.id)) is not None:
            known.set()

    def _ended(self) -> None:
        for left in self._asked.values():
            left.set()

    async def _answer(self, asked: Asked, left: asyncio.Event) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            **asked.scope,
            "raw_path": asked.scope["path"].encode(),
            "headers": asked.headers,
            "server": None,
            "client": tuple(asked.scope.get("client") or ()) or None,
        }
        unread = [{"type": "http.request", "body": asked.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                self._line.send(AnswerBegins(asked.id, event["status"], list(event.get("headers", ()))))
            elif event["type"] == "http.response.body":
                self._line.send(AnswerGoesOn(asked.id, event.get("body", b""), event.get("more_body", False)))

        try:
            await self._app(scope, receive, send)
        finally:
            self._asked.pop(asked.id, None)


class ControlLine:
    """The worker's end: an ASGI application."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[AnswerBegins | AnswerGoesOn | None]] = {}
        self._line = Line(AnswerBegins | AnswerGoesOn, on_message=self._take, on_end=self._ended)

    async def open(self, end: socket.socket) -> None:
        """Use this end of a socket pair."""
        await self._line.open(end)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return
            body += event.get("body", b"")
            if len(body) > MOST_BODY_BYTES:
                await _send_whole(send, 413, _TOO_LARGE)
                return
            if not event.get("more_body", False):
                break
        id = next(self._ids)
        answers = self._answers[id] = asyncio.Queue()
        scope[ON_DISCONNECT] = lambda: answers.put_nowait(None)
        known = {name: scope[name] for name in _SCOPE if name in scope}
        self._line.send(Asked(id, known, [(bytes(name), bytes(value)) for name, value in scope["headers"]], body))
        try:
            await self._pass_on(answers, send)
        finally:
            del self._answers[id]
            self._line.send(Gone(id))

    async def _pass_on(self, answers: asyncio.Queue[AnswerBegins | AnswerGoesOn | None], send: Any) -> None:
        begun = False
        while (answer := await answers.get()) is not None:
            if isinstance(answer, AnswerBegins):
                begun = True
                await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            else:
                await send({"type": "http.response.body", "body": answer.body, "more_body": answer.more})
                if not answer.more:
                    return
        if not begun:
            await _send_whole(send, 503, _AWAY)

    def _take(self, told: AnswerBegins | AnswerGoesOn) -> None:
        if (answers := self._answers.get(told.id)) is not None:
            answers.put_nowait(told)

    def _ended(self) -> None:
        for answers in self._answers.values():
            answers.put_nowait(None)


async def _send_whole(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
