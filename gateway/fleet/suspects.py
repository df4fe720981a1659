"""Which adapter may be what ends boxes: it was being asked for each time that one ended, and has not answered since.

vLLM reads an adapter that its pool in main memory has dropped from disk again, inside the engine's step: one whose
folder is gone or damaged ends the engine, and with it everybody's answers. The box comes back, the next request for
that adapter ends it again, and each request may end two boxes. So such an adapter is kept off all boxes of its fleet,
but for one attempt at a time, at the box that it has just ended, after waits that grow. Any answer of its own clears
it: of two boxes that were killed for some other reason it was no more than a witness, and its first attempt shows
that. Pure: time is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.observe.alarms import Alarms

ALARM: Final = "adapter_suspected"

SUSPECTED_AFTER: Final = 2
"""Boxes that ended in a row. One request may meet two (the journey's rule), so that its next one meets none."""

WINDOW_S: Final = 10.0
"""Between a lost attempt and the box's being found down: vLLM's server outlives its engine by up to 5 s, a probe comes
every 2 s and may take as long."""

FIRST_HOLD_S: Final = 2.0
"""After :data:`SUSPECTED_AFTER` ends, which may well have been somebody else's doing: try as soon as a box is back."""

LONGER_HOLD_S: Final = 30.0
LONGEST_HOLD_S: Final = 600.0
"""After one more it doubles from the one to the other. A box may take a minute to come back, and is then to serve the
others for longer than that."""

ELSEWHERE_S: Final = 10.0
"""So much later may it be tried at boxes other than the one that it ended last: one box is enough to find out."""


def hold_s(ends: int) -> float:
    """How long an adapter is kept off the boxes after so many ends in a row."""
    if ends < SUSPECTED_AFTER:
        return 0.0
    if ends == SUSPECTED_AFTER:
        return FIRST_HOLD_S
    return min(LONGEST_HOLD_S, LONGER_HOLD_S * 2.0 ** min(ends - SUSPECTED_AFTER - 1, 10))


class Suspicious(Protocol):
    """A box, as far as it matters here."""

    @property
    def name(self) -> str:
        """The box's name."""

    def suspect(self, adapter: str, now: float, for_s: float) -> None:
        """Watch for the adapter's next answer. It is not to be asked for until ``for_s`` have passed, then by one."""

    def trust(self, adapter: str) -> None:
        """It is as any other."""


@dataclass(slots=True)
class _Suspicion:
    """``ends``: the boxes that ended in a row, the latest last. ``until``: how long it is held, by box."""

    ends: list[str] = field(default_factory=list)
    until: dict[str, float] = field(default_factory=dict)


class Suspects:
    """Those of one fleet, whose boxes tell it what they see."""

    def __init__(self, fleet: str, alarms: Alarms) -> None:
        self._fleet = fleet
        self._alarms = alarms
        self._boxes: tuple[Suspicious, ...] = ()
        self._lost: dict[str, dict[str, float]] = {}
        # By box, when an adapter was last being asked for there as it may have ended.
        self._counted: set[tuple[str, str]] = set()
        # (box, adapter), for which the box's present end was counted.
        self.known: dict[str, _Suspicion] = {}
        """By adapter. To be looked into by whoever has no time for a call: it is nearly always empty."""

    def follow(self, boxes: Iterable[Suspicious], adapters: frozenset[str], now: float) -> None:
        """These are the fleet's boxes, and these the adapters that policies name."""
        before = {id(box) for box in self._boxes}
        self._boxes = tuple(boxes)
        names = {box.name for box in self._boxes}
        self._lost = {box: lost for box, lost in self._lost.items() if box in names}
        self._counted = {(box, adapter) for box, adapter in self._counted if box in names}
        for adapter in self.known.keys() - adapters:
            self.answered(adapter)
        for box in self._boxes:
            if id(box) not in before:
                for adapter, suspicion in self.known.items():
                    box.suspect(adapter, now, max(0.0, suspicion.until.get(box.name, 0.0) - now))

    def lost(self, box: str, adapter: str, now: float, *, down: bool) -> None:
        """A request for ``adapter`` ended, unanswered, as if ``box`` had; ``down``: it has."""
        suspicion = self.known.get(adapter)
        if suspicion is not None and len(suspicion.ends) >= SUSPECTED_AFTER:
            # Nobody is to be next while it is found out whether the box is gone.
            self._hold(adapter, box, WINDOW_S, now)
        if down:
            self._count(box, adapter, now)
        else:
            self._lost.setdefault(box, {})[adapter] = now

    def went_down(self, box: str, now: float) -> None:
        """``box`` was found to be out of use."""
        for adapter, at in self._lost.pop(box, {}).items():
            if now - at <= WINDOW_S:
                self._count(box, adapter, now)

    def came_up(self, box: str) -> None:
        """``box`` is in use again: its next end is another one."""
        self._counted = {counted for counted in self._counted if counted[0] != box}

    def answered(self, adapter: str) -> None:
        """``adapter`` gave an answer somewhere, or nobody names it any more."""
        suspicion = self.known.pop(adapter, None)
        for lost in self._lost.values():
            lost.pop(adapter, None)
        if suspicion is None:
            return
        self._counted = {counted for counted in self._counted if counted[1] != adapter}
        self._alarms.off(ALARM, f"{self._fleet}/{adapter}")
        for box in self._boxes:
            box.trust(adapter)

    def _count(self, box: str, adapter: str, now: float) -> None:
        if (box, adapter) in self._counted:
            return
        self._counted.add((box, adapter))
        suspicion = self.known.setdefault(adapter, _Suspicion())
        suspicion.ends.append(box)
        ends = len(suspicion.ends)
        for_s = hold_s(ends)
        self._hold(adapter, box, for_s, now)
        if for_s:
            which = ", ".join(dict.fromkeys(suspicion.ends))
            self._alarms.on(
                ALARM,
                f"{self._fleet}/{adapter}",
                f"{adapter} was being asked for each of the last {ends} times that a box ended ({which}), and has not "
                f"answered since: it is kept off the boxes for {for_s:.0f} s, and then tried by one request at a time. "
                "Look at its folder on the boxes and at the end of their logs; one that is mended gets a new name",
            )

    def _hold(self, adapter: str, ended: str, for_s: float, now: float) -> None:
        suspicion = self.known[adapter]
        for box in self._boxes:
            here_s = for_s if box.name == ended or not for_s else for_s + ELSEWHERE_S
            suspicion.until[box.name] = max(now + here_s, suspicion.until.get(box.name, 0.0))
            box.suspect(adapter, now, here_s)
