"""The waiting line of one fleet: who waits for room at its boxes, and who is next. Pure; time is handed in.

vLLM takes requests as they came, lets those wait for which all LoRA slots are in use, and lets later ones overtake
these for as long as others keep the slots busy. So a request for which no box has room waits here instead, in sight of
its budget, and room goes by priority, then to the adapter with the fewest in flight (max-min fairness: whoever sends
most waits most), then to who came first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gateway.errors import Reason
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.routing import Fit, fit

MOST_WAITING = 1024
"""In one line. One more pushes out whoever would be last: nobody's budget is long enough for the end of such a line."""

ASTRAY_AFTER_S = 1.0
"""So long a request waits for its home where that has a LoRA slot for it, and only too many others before it: elsewhere
it would cost two swaps, its own and that of whoever loses the slot. Where the home has none, a swap is due anyway."""

RAMP_AFTER_S = 0.1
"""So long a request waits before a box that comes back gets more than its share."""

LOOKED_AT = 4
"""Boxes for one request. With fifty, one of the first few has room nearly always, and an adapter that goes astray stays
on the same ones."""


class Roomy(Protocol):
    """A box as the line sees it."""

    @property
    def load(self) -> BoxLoad:
        """What is in flight there."""

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        """None where the box may be asked for this adapter; else why not."""

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        """Whether a request for this adapter would not see its first token within ``budget_s``."""

    def has_its_share(self, now: float) -> bool:
        """Whether others are to be asked first, as it comes back."""


B = TypeVar("B", bound=Roomy)


@dataclass(slots=True, eq=False)
class Waiter(Generic[B]):
    """One request, from ``came`` on. ``boxes`` in its order of preference; ``rank``: the lower the sooner."""

    adapter: str
    rank: int
    boxes: Sequence[B]
    budget_s: float
    came: float


class WaitingLine(Generic[B]):
    """``take`` is told who gets room where, has to make it count as in flight there before it returns, and says whether
    the box let it in. ``push_out`` is told who has left because the line is too long, or no box is left to wait for."""

    def __init__(
        self,
        take: Callable[[Waiter[B], B, float], bool],
        push_out: Callable[[Waiter[B]], None],
        *,
        most: int = MOST_WAITING,
    ) -> None:
        self._take = take
        self._push_out = push_out
        self._most = most
        # By rank and adapter, each in the order in which they came: of one adapter all are alike but for that.
        self._queues: dict[tuple[int, str], deque[Waiter[B]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def by_adapter(self) -> dict[str, int]:
        """How many wait, by adapter."""
        counts: dict[str, int] = {}
        for (_, adapter), queue in self._queues.items():
            counts[adapter] = counts.get(adapter, 0) + len(queue)
        return counts

    def enter(self, waiter: Waiter[B], now: float) -> None:
        """It waits from now on, or is served at once, or is the one to be pushed out."""
        self._queues.setdefault((waiter.rank, waiter.adapter), deque()).append(waiter)
        self._size += 1
        self.serve(now)
        if self._size > self._most:
            lowest = max(rank for rank, _ in self._queues)
            longest = max((key for key in self._queues if key[0] == lowest), key=lambda key: len(self._queues[key]))
            last = self._queues[longest][-1]
            self.leave(last)
            self._push_out(last)

    def leave(self, waiter: Waiter[B]) -> None:
        """It waits no longer. Idempotent."""
        key = waiter.rank, waiter.adapter
        queue = self._queues.get(key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            self._size -= 1
            if not queue:
                del self._queues[key]

    def serve(self, now: float) -> None:
        """Give whatever room there is, and send on who waits for nothing."""
        turned_away: set[tuple[int, str]] = set()
        while self._serve_one(turned_away, now):
            pass  # who is next depends on who has just got in

    def _serve_one(self, turned_away: set[tuple[int, str]], now: float) -> bool:
        # Whose turn it is matters only among those who can move. In an overload that is next to nobody, while hundreds
        # wait and are looked at whenever an answer ends.
        roomy: dict[B, bool] = {}
        able = [
            key
            for key in self._queues.keys() - turned_away
            if _may_get_in(self._queues[key][0], roomy, now) or _waits_in_vain(self._queues[key][0], now)
        ]
        for key in sorted(able, key=self._turn):
            waiter = self._queues[key][0]
            if _waits_in_vain(waiter, now):
                self.leave(waiter)
                self._push_out(waiter)
                return True
            box = self._room_for(waiter, now)
            # Taken before it leaves: where the box turns it away after all, it has kept its place.
            if box is not None and self._take(waiter, box, now):
                for one in waiter.boxes:
                    one.load.turns.served(waiter.adapter)
                self.leave(waiter)
                return True
            turned_away.add(key)
        return False

    def _turn(self, key: tuple[int, str]) -> tuple[int, int, float]:
        rank, adapter = key
        first = self._queues[key][0]
        return rank, sum(box.load.attempts.of(adapter) for box in first.boxes), first.came

    def _room_for(self, waiter: Waiter[B], now: float) -> B | None:
        adapter = waiter.adapter
        waited_s = now - waiter.came
        home: B | None = None
        looked_at = 0
        for box in waiter.boxes:
            if box.condition(adapter, now) is not None:
                continue
            if looked_at == LOOKED_AT:
                break
            looked_at += 1
            box.load.turns.expire(now)
            # The estimate is the dearest question, and those who wait are looked at each time.
            found = fit(box, adapter, home_is_full=home is not None)
            if found is Fit.FULL:
                home = home or box
            elif waited_s >= _hesitation_s(box, found, home, adapter, now) and not box.saturated(
                adapter, waiter.budget_s, now
            ):
                return box
        return None


def _waits_in_vain(waiter: Waiter[B], now: float) -> bool:
    """Whether no box is left that could be asked."""
    return all(box.condition(waiter.adapter, now) is not None for box in waiter.boxes)


def _may_get_in(waiter: Waiter[B], roomy: dict[B, bool], now: float) -> bool:
    """False where no box has room for it, in a look that is cheaper than ``_room_for``; ``roomy``: what is known of the
    boxes already."""
    for box in waiter.boxes:
        some = roomy.get(box)
        if some is None:
            load = box.load
            load.turns.expire(now)
            some = roomy[box] = load.lets_in
        if some and box.load.has_slot(waiter.adapter) and box.condition(waiter.adapter, now) is None:
            return True
    return False


def _hesitation_s(box: Roomy, found: Fit, home: Roomy | None, adapter: str, now: float) -> float:
    """How long a request waits for others before it takes room at ``box``."""
    if found is Fit.ASTRAY and home is not None and home.load.has_slot(adapter):
        return ASTRAY_AFTER_S
    return RAMP_AFTER_S if box.has_its_share(now) else 0.0
