"""The one table of all workers: takes what they tell, and says what is to be told to them. No I/O, no clock of its own.

What each worker is told of a box is what all *others* have in flight there, so that its own count is never out of date;
breakers, slots and the rest are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.fleet.placement import Placement
from gateway.workers.messages import (
    BoxReport,
    Held,
    Message,
    Outcome,
    ProviderOutcome,
    ProviderTrial,
    Report,
    Trial,
)
from gateway.workers.news import BoxCounts, Counts, Eject, HomesAre, ProvidersAre, States
from gateway.workers.tally import Tally
from gateway.workers.watched_health import WatchedHealth
from gateway.workers.watcher_box import WatcherBox

Value = TypeVar("Value")


class _Told(Generic[Value]):
    """What was last told by key, so that only what has changed is told."""

    def __init__(self) -> None:
        self._last: dict[str, Value] = {}

    def changed(self, key: str, value: Value) -> bool:
        """Whether ``value`` is new, or was asked for again; it is told now."""
        if self._last.get(key) == value:
            return False
        self._last[key] = value
        return True

    def again(self, key: str) -> None:
        """Whatever it is, tell it once more."""
        self._last.pop(key, None)


class Table:
    """``wanted`` hears that there is something to tell; ``at_once``: that it is of the kind that cannot wait.

    A :class:`~gateway.workers.watcher_box.Listener` of the boxes.
    """

    def __init__(self, wanted: Callable[[bool], None]) -> None:
        self._wanted = wanted
        self._tally = Tally()
        self._boxes: dict[str, WatcherBox] = {}
        self._providers: dict[str, WatchedHealth] = {}
        self._fleets: Fleets | None = None
        self._touched: dict[WatcherBox, None] = {}
        self._counts_changed: dict[str, None] = {}
        self._urgent: list[Message] = []
        self._providers_changed = False
        self._heard: dict[int, int] = {}
        self._standings = _Told[object]()
        self._loads = _Told[object]()
        self._engines = _Told[object]()
        self._others: dict[int, _Told[Held]] = {}
        self._homes: dict[str, Placement | None] = {}

    def follow(self, fleets: Fleets, hosted: Hosted) -> None:
        """These are the boxes and the providers of the policy in force."""
        self._fleets = fleets
        self._boxes = {box.key: box for box in fleets.with_those_that_leave() if isinstance(box, WatcherBox)}
        known = {name: watched.health for name, watched in self._providers.items()}
        self._providers = {
            name: self._providers[name] if known.get(name) is health else WatchedHealth(health)
            for name, health in hosted.all().items()
        }
        self.tell_all()

    def tell_all(self) -> None:
        """Everything, once more: somebody has just come, or has a new policy."""
        for key, box in self._boxes.items():
            for told in (self._standings, self._loads, self._engines):
                told.again(key)
            self._counts_changed[key] = None
            self._touched[box] = None
        self._homes = {}
        for others in self._others.values():
            for key in self._boxes:
                others.again(key)
        self._providers_changed = True
        self._wanted(True)

    def tell_providers(self) -> None:
        """Providers were asked here, not by a worker: all are to hear what that has shown."""
        self._providers_changed = True
        self._wanted(True)

    # What workers tell.

    def joined(self, worker: int) -> None:
        """A worker was started. It counts from 0 anew."""
        self._heard[worker] = 0
        self._others[worker] = _Told()

    def ended(self, worker: int) -> None:
        """A worker is gone: with it go its attempts, and its trials are anybody's again."""
        self._heard.pop(worker, None)
        self._others.pop(worker, None)
        for key in self._tally.forget(worker):
            self._count(key)
        for box in self._boxes.values():
            box.forget(worker)
        for watched in self._providers.values():
            watched.forget(worker)
        self._providers_changed = True
        self._wanted(True)

    def take(self, worker: int, told: Report | Outcome | Trial | ProviderOutcome | ProviderTrial, now: float) -> None:
        """What ``worker`` told. Of a box or provider that left the policy it is of no use any more."""
        if worker not in self._heard:
            return
        self._heard[worker] = told.number
        match told:
            case Report():
                for report in told.boxes:
                    self._take_report(worker, report, now)
                for fleet, counts in told.traffic.items():
                    if self._fleets is not None and (homes := self._fleets.homes.get(fleet)) is not None:
                        homes.traffic.add(counts)
                self._wanted(False)
            case Outcome() | Trial():
                box = self._boxes.get(told.key)
                if box is not None:
                    self._standings.again(told.key)
                    if isinstance(told, Outcome):
                        # The worker may have taken it for more than it is, and have forgotten the box's load.
                        self._loads.again(told.key)
                        self._engines.again(told.key)
                        box.take_outcome(worker, told)
                    else:
                        box.take_trial(worker, told)
            case ProviderOutcome() | ProviderTrial():
                watched = self._providers.get(told.name)
                if watched is not None:
                    if isinstance(told, ProviderOutcome):
                        watched.take_outcome(worker, told)
                    else:
                        watched.take_trial(worker, told)
                self._providers_changed = True
                self._wanted(True)

    # What boxes tell.

    def touched(self, box: WatcherBox, *, at_once: bool) -> None:
        """There may be news of ``box``."""
        self._touched[box] = None
        self._wanted(at_once)

    def ejected(self, box: WatcherBox, why: str, *, silent: bool) -> None:
        """The workers' attempts that wait on ``box`` have to end."""
        self._urgent.append(Eject(box.key, why, silent))

    # What is to be told.

    def news(self) -> tuple[dict[int, Counts], list[Message]]:
        """For each worker what the others have in flight, which is to be told first; and what is the same for all."""
        touched, self._touched = self._touched, {}
        boxes = [box for box in touched if self._boxes.get(box.key) is box]
        changed = self._counts_changed.keys() | {box.key for box in boxes}
        self._counts_changed = {}
        counts = {worker: self._counts(worker, changed) for worker in self._heard}
        states = States([], [], [])
        for box in boxes:
            if self._standings.changed(box.key, standing := box.standing()):
                states.standings.append(standing)
            if self._loads.changed(box.key, load := box.busy()):
                states.loads.append(load)
            if self._engines.changed(box.key, box.reading_at):
                states.engines.append(box.engine())
        common, self._urgent = self._urgent, []
        if states.standings or states.loads or states.engines:
            common.append(states)
        if self._providers_changed:
            self._providers_changed = False
            common.append(ProvidersAre([watched.standing() for watched in self._providers.values()]))
        for name, homes in (self._fleets.homes if self._fleets is not None else {}).items():
            if (placed := homes.placement) is not self._homes.get(name):
                self._homes[name] = placed
                common.append(HomesAre(name, {} if placed is None else dict(placed.homes)))
        return counts, common

    def _counts(self, worker: int, changed: set[str]) -> Counts:
        told = self._others[worker]
        boxes = []
        for key in changed:
            box = self._boxes.get(key)
            if box is None:
                continue
            others = self._tally.total(key, but=worker, beside=box.own(), reading_at=box.reading_at)
            if told.changed(key, others):
                boxes.append(BoxCounts(key, others))
        return Counts(self._heard[worker], boxes)

    def _take_report(self, worker: int, report: BoxReport, now: float) -> None:
        self._tally.report(worker, report.key, report.held)
        self._count(report.key)
        if (box := self._boxes.get(report.key)) is not None:
            box.take_report(report, now)

    def _count(self, key: str) -> None:
        self._counts_changed[key] = None
        if (box := self._boxes.get(key)) is not None:
            box.take_counts(self._tally.total(key, reading_at=box.reading_at))
