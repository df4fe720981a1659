"""A box as the watcher has it: the one that counts. Says when there is news of it, and what the news is."""

from __future__ import annotations

from typing import Protocol

from gateway.fleet.blame import Failure
from gateway.fleet.box import Box
from gateway.fleet.breaker import Breaker, State
from gateway.fleet.breaker import Permit as BreakerPermit
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.permit import Permit
from gateway.observe.actor import UNKNOWN, Actor
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import BoxSpec
from gateway.upstream.pool import Pool
from gateway.workers.box_key import box_key
from gateway.workers.messages import BoxReport, Held, Outcome, Pass, Trial
from gateway.workers.news import NOBODY, WATCHER, Engine, Load, PairStanding, Standing


class Listener(Protocol):
    """Who hears that there is news of a box."""

    def touched(self, box: WatcherBox, *, at_once: bool) -> None:
        """``at_once``: it is of a kind that all workers have to have before their next request."""

    def ejected(self, box: WatcherBox, why: str, *, silent: bool) -> None:
        """The workers' attempts that wait on it have to end too."""


class WatcherBox(Box):
    """``listener`` hears of news. Workers' attempts are none of its own: they are told to it as they go."""

    def __init__(
        self,
        spec: BoxSpec,
        pool: Pool,
        *,
        base_model: str,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        listener: Listener,
    ) -> None:
        super().__init__(spec, pool, base_model=base_model, metrics=metrics, alarms=alarms, events=events)
        self.key = box_key(spec, base_model)
        self.awaited_elsewhere = 0
        """Attempts of workers without content yet."""
        self._listener = listener
        self._streams_elsewhere = 0
        self._trials: dict[tuple[int, int], BreakerPermit] = {}
        # Those of workers, each by the number under which it began.

    # News.

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a first content from it, here or in a worker."""
        return self.awaited_elsewhere > 0 or super().awaited

    def admit(
        self, adapter: str | None, now: float, *, streamed: bool = False, force: bool = False, probe: bool = False
    ) -> Permit | None:
        """As of one process; here only probes come in."""
        permit = super().admit(adapter, now, streamed=streamed, force=force, probe=probe)
        self._listener.touched(self, at_once=not self.breaker.closed)
        return permit

    def answered(self, permit: Permit, now: float) -> None:
        """Content came, here or in a worker."""
        super().answered(permit, now)
        self._listener.touched(self, at_once=False)

    def learned(self, permit: Permit, failure: Failure, now: float) -> None:
        """An attempt failed, here or in a worker."""
        super().learned(permit, failure, now)
        self._listener.touched(self, at_once=True)

    def ended(self, permit: Permit) -> None:
        """A probe is over."""
        super().ended(permit)
        self._listener.touched(self, at_once=False)

    def read(self, reading: EngineReading) -> None:
        """Its metrics were read."""
        super().read(reading)
        self._streams_elsewhere = 0
        self._listener.touched(self, at_once=False)

    def listed(self, names: frozenset[str]) -> None:
        """It says that it has these adapters."""
        super().listed(names)
        self._listener.touched(self, at_once=True)

    def suspect(self, adapter: str, now: float, for_s: float) -> None:
        """An adapter may be what ends boxes."""
        super().suspect(adapter, now, for_s)
        self._listener.touched(self, at_once=True)

    def trust(self, adapter: str) -> None:
        """It is not."""
        super().trust(adapter)
        self._listener.touched(self, at_once=True)

    def hold(self, adapter: str, now: float) -> None:
        """It is being loaded, and has to answer before customers are sent there."""
        super().hold(adapter, now)
        self._listener.touched(self, at_once=True)

    def let(self, adapter: str, *, answers: bool) -> None:
        """That is over."""
        super().let(adapter, answers=answers)
        self._listener.touched(self, at_once=True)

    def drain(self, actor: Actor = UNKNOWN) -> None:
        """An operator takes it off duty."""
        super().drain(actor)
        self._listener.touched(self, at_once=True)

    def undrain(self, now: float, actor: Actor = UNKNOWN) -> None:
        """It is on duty again."""
        super().undrain(now, actor)
        self._listener.touched(self, at_once=True)

    def eject(self, now: float, why: str, *, silent: bool = True) -> None:
        """It hangs, or is gone."""
        super().eject(now, why, silent=silent)
        self._listener.ejected(self, why, silent=silent)
        self._listener.touched(self, at_once=True)

    def _breaker_changed(self, state: State) -> None:
        super()._breaker_changed(state)
        self._listener.touched(self, at_once=True)

    # What workers tell.

    def take_report(self, report: BoxReport, now: float) -> None:
        """What happened at one worker, but for what it has in flight."""
        load = self.load
        for name in report.used:
            if load.slots.use(name, load.attempts.of):
                self._metrics.box_predicted_swaps.inc(self.name)
        for sample in report.samples:
            if sample.gave_up:
                load.ttfts.gave_up(sample.ttft_s, now=sample.at)
            else:
                load.ttfts.observe(sample.ttft_s, silent=sample.silent_before, now=sample.at)
            load.limit.observe(sample.ttft_s, sample.in_flight, sample.at)
        if report.successes:
            self.breaker.succeeded_elsewhere(report.successes, now)
        if report.last_life is not None:
            self.last_life = max(report.last_life, self.last_life or report.last_life)
        self._listener.touched(self, at_once=False)

    def take_counts(self, total: Held) -> None:
        """What all workers have in flight, together."""
        self.load.attempts.follow(total.counts, total.silent)
        self.awaited_elsewhere = total.awaited
        self.load.sent_elsewhere(total.streams - self._streams_elsewhere)
        self._streams_elsewhere = total.streams
        self._listener.touched(self, at_once=False)

    def take_outcome(self, worker: int, told: Outcome) -> None:
        """An attempt of a worker's told more than that the box answers. It counts as if it had been made here."""
        adapter = told.adapter
        pair = None if told.pair is None else self.pairs.get(adapter)
        permit = Permit(
            self,
            adapter,
            told.at,
            self._permit(worker, self.breaker, told.box),
            None if pair is None or told.pair is None else self._permit(worker, pair.breaker, told.pair),
            streamed=False,
            silent_before=0,
            in_flight=1,
        )
        if told.failure is None:
            self.answered(permit, told.at)
        else:
            self.learned(permit, told.failure, told.at)
        # The worker has to hear that this was heard, whether or not it changed anything.
        self._listener.touched(self, at_once=True)

    def take_trial(self, worker: int, told: Trial) -> None:
        """A worker's trial began, or is over."""
        if told.over:
            if (trial := self._trials.pop((worker, told.over), None)) is not None:
                trial.released()
        else:
            pair = self.pairs.get(told.adapter)
            breaker = self.breaker if told.of_box else None if pair is None else pair.breaker
            permit = None if breaker is None else breaker.begin(told.at, force=True)
            if permit is not None:
                self._trials[worker, told.number] = permit
        self._listener.touched(self, at_once=True)

    def forget(self, worker: int) -> None:
        """The worker has ended, and its trials with it."""
        for which in [which for which in self._trials if which[0] == worker]:
            self._trials.pop(which).released()
        self._listener.touched(self, at_once=True)

    def _permit(self, worker: int, breaker: Breaker, told: Pass) -> BreakerPermit:
        if told.kind == "trial" and (trial := self._trials.get((worker, told.trial))) is not None:
            return trial
        return BreakerPermit(breaker, told.epoch, forced=told.kind != "usual")

    # What the news is.

    def standing(self) -> Standing:
        """Whether it may be asked."""
        return Standing(
            self.key,
            self.breaker.finding(),
            self._whose(self.breaker),
            self.duty.finding(),
            [
                PairStanding(
                    adapter,
                    pair.missing,
                    pair.suspected,
                    pair.breaker.finding(),
                    self._whose(pair.breaker),
                    held=adapter in self.pairs.held,
                )
                for adapter, pair in self.pairs.items()
            ],
            sorted(self._failing),
            self._refuses_key,
            self._opened_by_silence,
            self.last_error,
        )

    def busy(self) -> Load:
        """How busy it is."""
        load = self.load
        return Load(self.key, load.limit.limit, load.slots.slots, load.slots.held, load.ttfts.finding())

    def engine(self) -> Engine:
        """What it said of itself."""
        return Engine(self.key, self.load.history.latest, self.load.history.pace)

    def own(self) -> Held:
        """What the watcher itself has in flight there."""
        counts, silent = self.load.attempts.own
        return Held(dict(counts), silent, len(self.pending), 0, self.reading_at)

    @property
    def reading_at(self) -> float | None:
        """Of its latest reading."""
        return None if self.load.history.latest is None else self.load.history.latest.at_s

    def _whose(self, breaker: Breaker) -> int:
        if not breaker.tried:
            return NOBODY
        # Whoever's it is: a breaker has one trial at most.
        return next((which[0] for which, trial in self._trials.items() if breaker.is_trial(trial)), WATCHER)
