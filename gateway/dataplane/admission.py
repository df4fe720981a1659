"""Requests that wait for room at the boxes of their fleet: :class:`WaitingLine` with futures and a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dataplane.candidate import Wait
from gateway.dataplane.request import Request
from gateway.fleet.box import Box
from gateway.fleet.permit import Permit
from gateway.fleet.waiting_line import Waiter, WaitingLine
from gateway.policy.compiled import CustomerPolicy, Priority

RANKS: dict[Priority, int] = {"high": 0, "standard": 1, "low": 2}

TICK_S = 0.02
"""How often a line is served while anybody waits: for what no end of an answer tells of, such as an estimate that has
become better."""

Grant = tuple[Box, Permit]


@dataclass(slots=True, eq=False)
class _Waiting(Waiter[Box]):
    streamed: bool
    granted: asyncio.Future[Grant | None]


class Admission:
    """The lines of all fleets. Called from the event loop's thread."""

    def __init__(self) -> None:
        self._lines: dict[str, WaitingLine[Box]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Who tells of its ends while somebody waits; all others are spared that.
        self._told: dict[Box, str] = {}

    @property
    def waiting(self) -> dict[str, int]:
        """How many wait now, by fleet, where any do."""
        return {fleet: len(line) for fleet, line in self._lines.items() if len(line)}

    def waiting_for(self, fleet: str) -> dict[str, int]:
        """How many wait in one fleet, by adapter."""
        line = self._lines.get(fleet)
        return line.by_adapter if line is not None else {}

    async def room(
        self, loop: asyncio.AbstractEventLoop, wait: Wait, customer: CustomerPolicy, request: Request
    ) -> Grant | None:
        """The box that has room, and what it lets the request in by, which has to be released; None: none in time."""
        self._loop = loop
        boxes = [box for box in wait.boxes if isinstance(box, Box)]
        fleet = customer.fleet.name
        line = self._lines.get(fleet)
        if line is None:
            line = self._lines[fleet] = WaitingLine(_take, _push_out)
        now = loop.time()
        waiting = _Waiting(
            wait.adapter,
            RANKS[customer.priority],
            boxes,
            wait.budget_s,
            now,
            request.stream,
            loop.create_future(),
        )
        line.enter(waiting, now)
        granted = waiting.granted
        if not granted.done():
            self._have_told(fleet, boxes)
            if self._timer is None:
                self._timer = loop.call_later(TICK_S, self._tick, loop)
            time_is_over = loop.call_at(wait.until, _push_out, waiting)
            try:
                await granted
            except BaseException:
                # The client left, or the gateway ends, maybe just when there was room.
                if not granted.cancelled() and (grant := granted.result()) is not None:
                    grant[1].released()
                raise
            finally:
                time_is_over.cancel()
                line.leave(waiting)
        grant = granted.result()
        if grant is None:
            denied(boxes, wait.adapter, loop.time())
        return grant

    def _have_told(self, fleet: str, boxes: Sequence[Box]) -> None:
        for box in boxes:
            if box not in self._told:
                self._told[box] = fleet
                box.on_room = self._serve

    def _serve(self, box: Box) -> None:
        # Told by whoever ends an answer, which may be the last thing that happens in its task.
        line = self._lines[self._told[box]]
        if self._loop is not None and len(line):
            line.serve(self._loop.time())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for line in self._lines.values():
            line.serve(now)
        if any(len(line) for line in self._lines.values()):
            self._timer = loop.call_later(TICK_S, self._tick, loop)
            return
        for box in self._told:
            box.on_room = None
        self._told.clear()


def denied(boxes: Sequence[Box], adapter: str, now: float) -> None:
    """A request for ``adapter`` was not let in by any of ``boxes``, the first of which is its home."""
    if boxes:
        boxes[0].load.denied(adapter, now)


def _take(waiter: Waiter[Box], box: Box, now: float) -> bool:
    if not isinstance(waiter, _Waiting):
        raise TypeError("somebody else waits here")
    if waiter.granted.done():
        return False  # it is about to leave
    permit = box.admit(waiter.adapter, now, streamed=waiter.streamed)
    if permit is None:
        return False
    waiter.granted.set_result((box, permit))
    return True


def _push_out(waiter: Waiter[Box]) -> None:
    if isinstance(waiter, _Waiting) and not waiter.granted.done():
        waiter.granted.set_result(None)
