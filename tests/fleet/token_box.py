"""A box of a few lines that gives one token, or fails in a chosen way; and what watches it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import BoxSpec
from tests.transport.raw_server import read_request


def sse(*data: str) -> bytes:
    body = "".join(f"data: {item}\n\n" for item in data).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def status(code: int, body: str = "{}", *, headers: str = "") -> bytes:
    return f"HTTP/1.1 {code} X\r\n{headers}content-length: {len(body)}\r\n\r\n{body}".encode()


def chunk(delta: dict[str, object] | None = None, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}]})


TOKEN = sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "p"}), chunk(finish="length"), "[DONE]")
SILENT = b""


@dataclass
class Watchers:
    """Everything that hears of what boxes do."""

    registry: Registry
    metrics: GatewayMetrics
    alarms: Alarms
    events: Events

    def event_kinds(self) -> list[str]:
        return [event.kind for event in self.events.since(0)]


def new_watchers() -> Watchers:
    """Some that have heard nothing yet."""
    registry = Registry()
    metrics, events = GatewayMetrics(registry), Events(100)
    return Watchers(registry, metrics, Alarms(metrics, events), events)


class TokenBox:
    """Answers every request with ``answer``; with ``SILENT`` it takes requests and says nothing."""

    def __init__(self, answer: bytes = TOKEN) -> None:
        self.answer = answer
        self.answers: dict[bytes, bytes] = {}
        """By path, in the place of ``answer``."""
        self.requests: list[tuple[bytes, bytes]] = []
        self.times: list[float] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def spec(self, name: str = "a", **changes: object) -> BoxSpec:
        url = f"http://127.0.0.1:{self.port}"
        return BoxSpec(**{"name": name, "fleet": "main", "url": url, "max_loras": 8, "max_cpu_loras": 64} | changes)  # type: ignore[arg-type]

    async def start(self) -> None:
        """Listen; again on the same port after :meth:`stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head, body = await read_request(reader)
                self.requests.append((head, body))
                if head.startswith(b"POST"):
                    self.times.append(asyncio.get_running_loop().time())
                if self.answer == SILENT:
                    await reader.read()
                    return
                writer.write(self.answers.get(head.split(b" ")[1], self.answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """Die: nothing listens any more, what was open is closed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
