"""What arrived at a simulator: the tests' evidence of what was asked, with which key, and whether it was cancelled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.clock import wall_s


class Entry:
    """One request. Its times are of ``time.monotonic``, which all processes of a machine share."""

    __slots__ = (
        "body",
        "client_left",
        "connection",
        "ended",
        "events",
        "fault",
        "headers",
        "id",
        "keep_alive",
        "method",
        "model",
        "path",
        "query",
        "started",
        "started_unix",
        "status",
    )

    def __init__(self, id: int, connection: int, method: str, path: str, now: float) -> None:
        self.id = id
        self.connection = connection
        self.method = method
        self.path = path
        self.query = ""
        self.keep_alive = True
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.model: str | None = None
        self.started = now
        self.started_unix = wall_s()
        self.ended: float | None = None
        self.client_left = False
        self.status: int | None = None
        self.events = 0
        self.fault: str | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of this (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def shown(self) -> dict[str, Any]:
        """As ``GET /simulator/requests`` gives it."""
        try:
            body: Any = msgspec.json.decode(self.body) if self.body else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = None
        return {
            "id": self.id,
            "connection": self.connection,
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "headers": {key.decode("latin-1"): value.decode("latin-1") for key, value in self.headers},
            "body": body,
            "body_bytes": len(self.body),
            "started_unix": self.started_unix,
            "started_monotonic": self.started,
            "ended_monotonic": self.ended,
            "running": self.ended is None,
            "status": self.status,
            "events": self.events,
            "fault": self.fault,
            "client_left": self.client_left,
            "client_left_after_s": self.ended - self.started if self.client_left and self.ended is not None else None,
        }


class Journal:
    """The latest requests, oldest first."""

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self.total = 0

    def begin(self, connection: int, method: str, path: str) -> Entry:
        """A request has arrived."""
        self.total += 1
        entry = Entry(self.total, connection, method, path, self._clock())
        self._entries.append(entry)
        return entry

    def end(self, entry: Entry, *, client_left: bool) -> None:
        """It is over."""
        entry.ended = self._clock()
        entry.client_left = client_left

    def clear(self) -> None:
        """Forget all of them; numbers go on."""
        self._entries.clear()

    def shown(self, *, after: int = 0) -> list[dict[str, Any]]:
        """Those with a number above ``after``."""
        return [entry.shown() for entry in self._entries if entry.id > after]
