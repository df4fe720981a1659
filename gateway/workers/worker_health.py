"""A provider as a worker has it: as a box, it acts at once, tells, and follows."""

from __future__ import annotations

from collections.abc import Callable

from gateway.fleet.provider_health import (
    ProviderBlame,
    ProviderFailure,
    ProviderHealth,
    ProviderPermit,
    ProviderState,
)
from gateway.fleet.shared_breaker import SharedBackOff, SharedBreaker
from gateway.workers.messages import Pass
from gateway.workers.news import ProviderStanding
from gateway.workers.reporter import Reporter

NO_TRIALS = 0, 0


class WorkerHealth(ProviderHealth):
    """``on_change`` is told of no state: it is the watcher that counts and tells."""

    __slots__ = ("_breaker", "_reporter", "_told", "_trials", "_wait")

    def __init__(self, name: str, on_change: Callable[[ProviderState], None] | None, *, reporter: Reporter) -> None:
        super().__init__(name, on_change)
        self._reporter = reporter
        self.back_off = self._wait = SharedBackOff(reporter.may_try)
        self.breaker = self._breaker = SharedBreaker(reporter.may_try, self._changed)
        self._told = 0
        self._trials: dict[ProviderPermit, tuple[int, int]] = {}

    def admit(
        self, now: float, *, streamed: bool, by_worker: bool = False, force: bool = False
    ) -> ProviderPermit | None:
        """As of one process. Of a trial all others have to know at once."""
        permit = super().admit(now, streamed=streamed, by_worker=by_worker, force=force)
        if permit is not None and (permit.circuit.trial or permit.turn.trial):
            numbers = [
                self._reporter.provider_trial(self.name, now, of_breaker=is_breaker) if trial else 0
                for trial, is_breaker in ((permit.circuit.trial, True), (permit.turn.trial, False))
            ]
            self._trials[permit] = numbers[0], numbers[1]
            self._told = self._reporter.number
        return permit

    def answered(self, permit: ProviderPermit, now: float) -> None:
        """Content came."""
        clean = self.breaker.clean and self.back_off.until is None
        passes = self._passes(permit)
        super().answered(permit, now)
        if not clean:
            self._told = self._reporter.provider_outcome(self.name, now, *passes, None)

    def learned(self, permit: ProviderPermit, failure: ProviderFailure, now: float) -> None:
        """An attempt failed."""
        passes = self._passes(permit)
        super().learned(permit, failure, now)
        if failure.blame is not ProviderBlame.NOBODY:
            self._told = self._reporter.provider_outcome(self.name, now, *passes, failure)

    def ended(self, permit: ProviderPermit) -> None:
        """The attempt is over."""
        for number, of_breaker in zip(self._trials.pop(permit, NO_TRIALS), (True, False), strict=True):
            if number:
                self._told = self._reporter.provider_trial(self.name, 0.0, of_breaker=of_breaker, over=number)

    def follow(self, found: ProviderStanding, heard: int) -> None:
        """See :meth:`gateway.workers.worker_box.WorkerBox.follow_standing`."""
        if heard < self._told:
            return
        others = self._reporter.is_anothers
        self._breaker.follow(found.breaker, taken=others(found.breaker_trial))
        self._wait.follow(found.back_off, taken=others(found.back_off_trial))
        self._silent = found.silent
        self.last_error = found.last_error

    def _passes(self, permit: ProviderPermit) -> tuple[Pass, Pass]:
        circuit, turn = permit.circuit, permit.turn
        of_breaker, of_back_off = self._trials.get(permit, NO_TRIALS)
        return (
            Pass(circuit.epoch, "trial", of_breaker)
            if circuit.trial
            else Pass(circuit.epoch, "forced" if circuit.forced else "usual"),
            Pass(turn.epoch, "trial", of_back_off) if turn.trial else Pass(turn.epoch, "usual"),
        )
