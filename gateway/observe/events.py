"""What happened lately: a bounded ring of events that can be read from any point and waited on.

For people who watch: the ops page, ``failsoft demo``, the log. Nothing in the gateway decides by it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.clock import wall_s

FieldValue = str | int | float


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``sequence`` counts from 1; ``at_s`` is Unix time."""

    sequence: int
    at_s: float
    kind: str
    fields: Mapping[str, FieldValue]

    def as_json(self) -> dict[str, object]:
        """For the admin API."""
        return {"sequence": self.sequence, "at": round(self.at_s, 3), "kind": self.kind, "fields": dict(self.fields)}


class Events:
    """The last ``capacity`` events. ``echo`` is called with each new one (the log's side)."""

    def __init__(self, capacity: int = 1000, *, echo: Callable[[Event], None] | None = None) -> None:
        self._ring: deque[Event] = deque(maxlen=capacity)
        self._echo = echo
        self._waiting: set[asyncio.Future[None]] = set()
        self.newest = 0
        """The sequence number of the newest event, 0 while there is none."""

    def add(self, kind: str, /, **fields: FieldValue) -> Event:
        """Record that something happened. Never put a secret or what a client wrote into a field."""
        self.newest += 1
        event = Event(self.newest, wall_s(), kind, fields)
        self._ring.append(event)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
        if self._echo is not None:
            self._echo(event)
        return event

    def since(self, sequence: int) -> tuple[Event, ...]:
        """The events after ``sequence`` that the ring still holds, oldest first.

        A number ahead of the newest comes from before a restart, and reads from the start.
        """
        if sequence > self.newest:
            sequence = 0
        wanted = self.newest - sequence
        if wanted >= len(self._ring):
            return tuple(self._ring)
        return tuple(self._ring[i] for i in range(len(self._ring) - wanted, len(self._ring)))

    async def wait(self, sequence: int) -> tuple[Event, ...]:
        """As :meth:`since`, but waits until there is at least one."""
        while not (events := self.since(sequence)):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return events
