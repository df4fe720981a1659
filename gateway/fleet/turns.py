"""Whose turn it is at a box whose LoRA slots others keep busy: pure, time is handed in.

An adapter keeps its slot for as long as any request for it runs, so where as many adapters as there are slots are
never idle, another one never gets in: vLLM was seen to let one wait 14.8 s with sequence slots free. Who was turned
away for a while therefore gets a reservation. One of those in flight there gets nothing new at this box until the
adapter that waits is in; then it has to wait for a slot as all others have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

TURN_AFTER_S = 5.0
"""An adapter that was asked for and turned away for so long, without one answer of its own, gets a turn."""

FORGOTTEN_S = 30.0
"""Being turned away longer ago than this is not the same trouble any more."""

RESERVED_S = 15.0
"""So long a reservation stays: what runs has to end, and the next request for the adapter to come. At some 100 tokens a
second an answer of 400 takes 4 s."""

REST_S = 30.0
"""Who had to make room is spared for so long, where there is anybody else."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot is kept for ``adapter``; ``closed`` gets nothing new there meanwhile. ``until``: monotonic seconds."""

    adapter: str
    closed: str
    until: float


class Turns:
    """Those of one box, one reservation at a time."""

    __slots__ = ("_closed_at", "denied_since", "reservation")

    def __init__(self) -> None:
        self.reservation: Reservation | None = None
        self.denied_since: dict[str, tuple[float, float]] = {}
        """Since when an adapter has been turned away, and when it was last."""
        self._closed_at: dict[str, float] = {}

    def denied(self, adapter: str, in_flight: Mapping[str, int], now: float, has_slot: Callable[[str], bool]) -> None:
        """A request for ``adapter`` got no room here. ``in_flight``: how many run here, by adapter; ``has_slot`` says
        whether there is a slot for one: then it was turned away for something else."""
        since, last = self.denied_since.get(adapter, (now, now))
        if now - last > FORGOTTEN_S:
            since = now
        self.denied_since[adapter] = since, now
        self.expire(now)
        if self.reservation is not None or now - since < TURN_AFTER_S or has_slot(adapter):
            return
        others = [name for name in in_flight if name != adapter]
        if others:
            closed = min(
                others, key=lambda name: (now < self._closed_at.get(name, -REST_S) + REST_S, in_flight[name], name)
            )
            self._closed_at[closed] = now
            self.reservation = Reservation(adapter, closed, now + RESERVED_S)

    def served(self, adapter: str | None) -> None:
        """A request for ``adapter`` got room here."""
        if adapter is None:
            return
        self.denied_since.pop(adapter, None)
        if self.reservation is not None and self.reservation.adapter == adapter:
            self.reservation = None

    def expire(self, now: float) -> None:
        """Forget what was long ago."""
        if self.reservation is not None and now >= self.reservation.until:
            # It did not come back for it: its time begins anew, so that no slot stays empty for nobody.
            self.denied_since.pop(self.reservation.adapter, None)
            self.reservation = None
        if len(self.denied_since) + len(self._closed_at) > 64:
            self.denied_since = {name: at for name, at in self.denied_since.items() if now - at[1] <= FORGOTTEN_S}
            self._closed_at = {name: at for name, at in self._closed_at.items() if now - at <= REST_S}
