"""A box as a worker has it: acts at once on what it sees itself, tells the watcher, and follows what that makes of it
and of what all other workers tell.
"""

from __future__ import annotations

from gateway.fleet.blame import Blame, Failure
from gateway.fleet.box import Box
from gateway.fleet.box_load import BoxLoad, Sent
from gateway.fleet.breaker import Permit as BreakerPermit
from gateway.fleet.pairs import Pairs
from gateway.fleet.permit import Permit
from gateway.fleet.shared_breaker import SharedBreaker
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import BoxSpec
from gateway.upstream.pool import Pool
from gateway.workers.box_key import box_key
from gateway.workers.messages import BoxReport, Held, Pass, Sample
from gateway.workers.news import Engine, Load, Standing
from gateway.workers.reporter import Reporter

NO_TRIALS = 0, 0


class WorkerLoad(BoxLoad):
    """What the worker itself saw since its last report is kept beside what it makes of it."""

    def __init__(self, max_loras: int) -> None:
        super().__init__(max_loras)
        self.used: dict[str, None] = {}
        self.samples: list[Sample] = []
        self.streams = 0
        self._streams_elsewhere = 0
        self._others = Held()

    def began(self, adapter: str | None, *, streamed: bool) -> tuple[int, int]:
        """As of a box of one process, and remembered."""
        self.streams += streamed
        if adapter is not None:
            self.used.pop(adapter, None)
            self.used[adapter] = None
        return super().began(adapter, streamed=streamed)

    def first_content(self, sent: Sent, now: float) -> None:
        """The same. The limit is learned by the watcher, from all samples."""
        if sent.streamed:
            self.ttfts.observe(now - sent.began, silent=sent.silent_before, now=now)
            self.samples.append(Sample(now - sent.began, sent.silent_before, sent.in_flight, now, False))

    def gave_up(self, sent: Sent, now: float) -> None:
        """The same."""
        if sent.streamed:
            self.ttfts.gave_up(now - sent.began, now=now)
            self.samples.append(Sample(now - sent.began, sent.silent_before, sent.in_flight, now, True))

    def follow_engine(self, found: Engine) -> None:
        """The box's metrics were read."""
        if found.reading is not None and found.reading.at_s == self.reading_at:
            # Told again: what was sent since then was counted.
            return
        self.streams = self._streams_elsewhere = 0
        self.follow_reading(found.reading, found.pace)
        self.follow_counts(self._others)

    def follow_counts(self, others: Held) -> None:
        """What the other processes have in flight."""
        self._others = others
        self.attempts.follow(others.counts, others.silent)
        if others.reading_at == self.reading_at:
            self.sent_elsewhere(others.streams - self._streams_elsewhere)
            self._streams_elsewhere = others.streams

    @property
    def reading_at(self) -> float | None:
        """Of the latest reading that is known here."""
        return None if self.history.latest is None else self.history.latest.at_s

    def restarted(self) -> None:
        """As of a box of one process."""
        super().restarted()
        self.used.clear()
        self.samples.clear()


class WorkerBox(Box):
    """``metrics``, ``alarms`` and ``events`` are nobody's: it is the watcher that counts and tells."""

    def __init__(
        self,
        spec: BoxSpec,
        pool: Pool,
        *,
        base_model: str,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        reporter: Reporter,
    ) -> None:
        super().__init__(spec, pool, base_model=base_model, metrics=metrics, alarms=alarms, events=events)
        self.key = box_key(spec, base_model)
        self._reporter = reporter
        may_try = reporter.may_try
        self.breaker = SharedBreaker(may_try, self._breaker_changed)
        self.pairs = Pairs(spec.name, alarms, self._pair_changed, lambda changed: SharedBreaker(may_try, changed))
        self._load = self.load = WorkerLoad(spec.max_loras)
        self._successes = 0
        self._told_number = 0
        self._told_life: float | None = None
        self._trials: dict[Permit, tuple[int, int]] = {}
        # The numbers under which the trials of the box's and of the adapter's breaker began; 0 where it is none.

    # What happens here.

    def admit(
        self, adapter: str | None, now: float, *, streamed: bool = False, force: bool = False, probe: bool = False
    ) -> Permit | None:
        """As of a box of one process. Of a trial all others have to know at once."""
        permit = super().admit(adapter, now, streamed=streamed, force=force, probe=probe)
        if permit is not None:
            self._reporter.touch(self)
            if not self.breaker.closed or permit.pair_permit is not None:
                self._tell_of_trial(permit, now)
        return permit

    def answered(self, permit: Permit, now: float) -> None:
        """Content came. What there is to be cleared of is cleared everywhere."""
        # Before it is told here, as that changes what the passes say.
        passes = None if self._clean(permit.adapter) else self._passes(permit)
        super().answered(permit, now)
        self._reporter.touch(self)
        if passes is None:
            self._successes += 1
        else:
            self._told_number = self._reporter.outcome(self.key, permit.adapter, now, *passes, None)

    def learned(self, permit: Permit, failure: Failure, now: float) -> None:
        """An attempt failed."""
        clean = self._clean(permit.adapter)
        passes = self._passes(permit)
        super().learned(permit, failure, now)
        match failure.blame:
            case Blame.NOBODY | Blame.LOAD:
                pass
            case Blame.CLIENT if clean:
                self._successes += 1
            case _:
                self._told_number = self._reporter.outcome(self.key, permit.adapter, now, *passes, failure)

    def ended(self, permit: Permit) -> None:
        """The attempt is over."""
        super().ended(permit)
        self._reporter.touch(self)
        if self._trials:
            for number, of_box in zip(self._trials.pop(permit, NO_TRIALS), (True, False), strict=True):
                if number:
                    self._told_number = self._reporter.trial(self.key, permit.adapter, 0.0, of_box=of_box, over=number)

    # What is told.

    def report(self) -> BoxReport:
        """What happened since the last report."""
        load = self._load
        counts, silent = load.attempts.own
        held = Held(dict(counts), silent, len(self.pending), load.streams, load.reading_at)
        used, load.used = list(load.used), {}
        samples, load.samples = load.samples, []
        successes, self._successes = self._successes, 0
        self._told_life = self.last_life
        return BoxReport(self.key, held, used, samples, successes, self.last_life)

    def look_for_life(self) -> None:
        """Running answers alone are worth a report, if a rarer one: who says something is not to be probed."""
        if self.last_life != self._told_life:
            self._reporter.touch(self)

    # What the watcher says.

    def follow_standing(self, found: Standing, heard: int) -> None:
        """Be as the watcher has it, if that has taken in all that was told here: ``heard`` is the number of the last.

        What it has not would be undone; and it says it again when it has.
        """
        if heard < self._told_number:
            return
        breaker = self.breaker
        if isinstance(breaker, SharedBreaker):
            breaker.follow(found.breaker, taken=self._taken(found.trial))
        self.duty.follow(found.duty)
        self.pairs.follow(
            {pair.adapter: (pair.missing, pair.suspected) for pair in found.pairs},
            [pair.adapter for pair in found.pairs if pair.held],
        )
        for pair in found.pairs:
            known = self.pairs.get(pair.adapter)
            if known is not None and isinstance(known.breaker, SharedBreaker):
                known.breaker.follow(pair.breaker, taken=self._taken(pair.trial))
        self._failing = set(found.failing)
        self._refuses_key = found.refuses_key
        self._opened_by_silence = found.opened_by_silence
        self.last_error = found.last_error

    def follow_load(self, found: Load) -> None:
        """The same of how busy it is; what was sent from here meanwhile comes on top."""
        load = self._load
        load.limit.follow(found.limit)
        load.slots.slots = found.slots
        load.slots.follow(found.held)
        for name in (*self._reporter.unheard_uses(self.key), *load.used):
            load.slots.use(name, load.attempts.of)
        # Samples of the last milliseconds are missing in it, and come with the next.
        load.ttfts.follow(found.ttft)

    def follow_engine(self, found: Engine) -> None:
        """The box's metrics were read."""
        self._load.follow_engine(found)

    def follow_counts(self, others: Held) -> None:
        """What the other processes have in flight."""
        self._load.follow_counts(others)

    # Inside.

    def _clean(self, adapter: str | None) -> bool:
        """Whether a success of ``adapter`` tells nobody anything new."""
        return (
            self.breaker.clean
            and self.duty.on
            and not self._failing
            and not self._refuses_key
            and adapter not in self.pairs.known
        )

    def _taken(self, trial: int) -> bool:
        return self._reporter.is_anothers(trial)

    def _tell_of_trial(self, permit: Permit, now: float) -> None:
        of_box = permit.box_permit.trial
        of_pair = permit.pair_permit is not None and permit.pair_permit.trial
        if not (of_box or of_pair):
            return
        numbers = [
            self._reporter.trial(self.key, permit.adapter, now, of_box=is_box) if trial else 0
            for trial, is_box in ((of_box, True), (of_pair, False))
        ]
        self._trials[permit] = numbers[0], numbers[1]
        self._told_number = self._reporter.number

    def _passes(self, permit: Permit) -> tuple[Pass, Pass | None]:
        of_box, of_pair = self._trials.get(permit, NO_TRIALS)
        pair = permit.pair_permit
        return _pass(permit.box_permit, of_box), None if pair is None else _pass(pair, of_pair)


def _pass(permit: BreakerPermit, trial: int) -> Pass:
    if permit.trial:
        return Pass(permit.epoch, "trial", trial)
    return Pass(permit.epoch, "forced" if permit.forced else "usual")
