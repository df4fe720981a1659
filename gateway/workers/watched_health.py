"""A provider's health as the watcher has it, from what workers tell: itself it asks only in drills."""

from __future__ import annotations

from gateway.fleet.back_off import Turn
from gateway.fleet.breaker import Permit
from gateway.fleet.provider_health import ProviderHealth, ProviderPermit
from gateway.workers.messages import ProviderOutcome, ProviderTrial
from gateway.workers.news import NOBODY, WATCHER, ProviderStanding


class WatchedHealth:
    """Of one provider; ``health`` is what people are shown. Trials are kept by worker and the
    number under which they began."""

    def __init__(self, health: ProviderHealth) -> None:
        self.health = health
        self._circuits: dict[tuple[int, int], Permit] = {}
        self._turns: dict[tuple[int, int], Turn] = {}

    def take_outcome(self, worker: int, told: ProviderOutcome) -> None:
        """An attempt of a worker's told more than that the provider answers."""
        health = self.health
        circuit = self._circuits.get((worker, told.breaker.trial))
        turn = self._turns.get((worker, told.turn.trial))
        permit = ProviderPermit(
            health,
            turn or Turn(health.back_off, told.turn.epoch),
            circuit or Permit(health.breaker, told.breaker.epoch, forced=told.breaker.kind != "usual"),
            told.at,
            streamed=False,
            by_worker=False,
        )
        if told.failure is None:
            health.answered(permit, told.at)
        else:
            health.learned(permit, told.failure, told.at)

    def take_trial(self, worker: int, told: ProviderTrial) -> None:
        """A worker's trial began, or is over."""
        if told.over:
            self._end((worker, told.over))
        elif told.of_breaker:
            if (permit := self.health.breaker.begin(told.at, force=True)) is not None:
                self._circuits[worker, told.number] = permit
        elif (turn := self.health.back_off.begin(told.at, force=True)) is not None:
            self._turns[worker, told.number] = turn

    def forget(self, worker: int) -> None:
        """The worker has ended, and its trials with it."""
        for which in [which for which in (*self._circuits, *self._turns) if which[0] == worker]:
            self._end(which)

    def standing(self) -> ProviderStanding:
        """Whether it may be asked."""
        health = self.health
        return ProviderStanding(
            health.name,
            health.breaker.finding(),
            next(
                (worker for (worker, _), permit in self._circuits.items() if permit.trial),
                WATCHER if health.breaker.tried else NOBODY,
            ),
            health.back_off.finding(),
            next(
                (worker for (worker, _), turn in self._turns.items() if turn.trial),
                WATCHER if health.back_off.tried else NOBODY,
            ),
            health.silent,
            health.last_error,
        )

    def _end(self, which: tuple[int, int]) -> None:
        if (circuit := self._circuits.pop(which, None)) is not None:
            circuit.released()
        if (turn := self._turns.pop(which, None)) is not None:
            turn.released()
