"""An engine whose tokens come when the steps of a model make them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from backend.simulator.engine import Engine, Flight, Pace, Timer
from backend.simulator.engine_model import EngineModel
from backend.simulator.engine_step import Step as EngineStep
from backend.simulator.metrics import Finished, Gauges
from backend.simulator.pause import Pause
from backend.simulator.sleep import Sleep
from backend.simulator.steps import Signal, Step, Until
from backend.simulator.timeline import EngineTimeline

STOPPED_S: Final = 0.5
"""A step that is told later than this was not run late: the process was stopped meanwhile (SIGSTOP)."""
PauseMode: TypeAlias = Literal["abort", "wait", "keep"]
"""What becomes of requests in flight when the engine falls asleep."""
MERGED_S: Final = 0.25
"""Steps that are alike are told together for so long at most: who reads a stream waits for no more than that."""


class ModelledFlight(Flight):
    """One request: as many sequences as it has choices, told together, token by token."""

    __slots__ = ("aborted", "counts", "engine", "first", "latest", "left", "signal", "started")

    def __init__(
        self, engine: ModelledEngine, model: str, prompt_tokens: int, tokens: int, finish: str, ids: list[str]
    ) -> None:
        super().__init__(engine, model, prompt_tokens, tokens, finish)
        self.engine = engine
        self.aborted = False
        self.signal = Signal()
        self.counts = dict.fromkeys(ids, 0)
        self.left = len(ids)
        self.started: float | None = None
        self.first: float | None = None
        self.latest = 0.0

    @property
    def wanted(self) -> int:
        """Tokens of a sequence; one that ends by itself has one more, which says so."""
        return self.tokens + (self.finish == "stop")

    def until_token(self, number: int) -> Iterator[Step]:
        """Wait for the ``number``-th token, from 0."""
        yield Until(self.signal, number + 1)

    def until_whole(self) -> Iterator[Step]:
        """Wait for all of them."""
        yield Until(self.signal, self.wanted)

    def finished(self) -> None:
        """The model knows already."""

    def leave(self) -> None:
        """The request is over."""
        self.engine.left(self)


class ModelledEngine(Engine):
    """Runs an ``EngineModel`` in real time.

    Nothing runs before ``run_with``. The gauges are those of the end of the latest step, as with vLLM, so while the
    engine hangs they are stale. As with vLLM, a request that its client gave up is in no counter of finished ones.

    ``merged``: steps that are alike are told as one, see ``EngineTimeline``, which takes a fraction of the work. First
    tokens and ends come at the same time, tokens between them up to ``MERGED_S`` late.
    """

    def __init__(
        self,
        model: EngineModel,
        *,
        base: str,
        adapters: dict[str, str],
        pace: Pace,
        max_queued: int | None,
        max_model_len: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
        merged: bool = False,
    ) -> None:
        super().__init__(
            base=base,
            adapters=adapters,
            pace=pace,
            max_loras=model.loras.max_loras,
            max_queued=max_queued,
            clock=clock,
            max_model_len=max_model_len,
        )
        self.model = model
        self.asleep = Sleep()
        self._wall = wall
        self._timeline = EngineTimeline(model, merged=merged)
        self._merged = merged
        self._call_later: Callable[[float, Callable[[], None]], Timer] | None = None
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._hung_at: float | None = None
        self._hung_s = 0.0
        self._serial = 0
        self._by_id: dict[str, ModelledFlight] = {}
        self._told: Counter[str] = Counter()
        self._loads: Counter[str] = Counter()
        self._gauges = Gauges()
        self._drained = Signal()
        self._falls_asleep: int | None = None
        for name in self.adapters:
            self._loads[name] = 1
            model.preload(name)
        self.metrics.note_loras(self.max_loras, (), wall())

    def now(self) -> float:
        """Seconds of the engine's own time, which stands still while it hangs, or while its process was stopped."""
        now = (self.clock() if self._hung_at is None else self._hung_at) - self._hung_s
        if self._timer is not None and now - self._timer_due > STOPPED_S:
            # Nobody was there to run the steps that were due, so the engine did not run them either.
            self._hung_s += now - self._timer_due
            return self._timer_due
        return now

    def run_with(self, call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        """``call_later(seconds, what)`` is what steps are timed with."""
        self._call_later = call_later
        self._arm()

    def hang(self, hanging: bool) -> None:
        """Stand still, or go on."""
        if hanging and self._hung_at is None:
            self._hung_at = self.clock()
        elif not hanging and self._hung_at is not None:
            self._hung_s += self.clock() - self._hung_at
            self._hung_at = None
        self._arm()

    def admit(
        self, model: str, *, prompt_tokens: int, tokens: int, finish: str, sequences: int = 1
    ) -> ModelledFlight | None:
        """Queue a request; None at the queue limit, which counts every sequence that waits or runs."""
        if self.max_queued is not None and len(self._by_id) + sequences > self.max_queued:
            self.metrics.rejected += 1
            return None
        self._serial += 1
        ids = [f"{self._serial}-{index}" for index in range(sequences)]
        flight = ModelledFlight(self, model, prompt_tokens, tokens, finish, ids)
        flight.began = self.now()
        self._flights.add(flight)
        adapter = None if model == self.base else self._key(model)
        for id in ids:
            self._by_id[id] = flight
            # Choices share a prompt, whose blocks all but the first find in the prefix cache.
            self._timeline.submit(id, adapter, max(prompt_tokens // sequences, 1), flight.wanted, self.now())
        self._arm()
        return flight

    def left(self, flight: Flight) -> None:
        """``flight`` is over; what it has in the engine is taken out."""
        super().left(flight)
        if isinstance(flight, ModelledFlight):
            self._take_out(flight)
            self._arm()

    def load(self, name: str, path: str) -> float:
        """Load an adapter between two steps. A name that was unloaded is another adapter to the engine."""
        super().load(name, path)
        self._loads[name] += 1
        done = self._timeline.preload(self._key(name), self.now())
        self._arm()
        return max(done - self.now(), 0.0)

    def sleep(self, level: int, mode: PauseMode) -> Until:
        """Pause the scheduler, then fall asleep. What to wait for: with ``wait`` until nothing runs any more."""
        if mode == "abort":
            for flight in {*self._by_id.values()}:
                self._abort(flight)
        self._timeline.pause(Pause.ALL if mode == "keep" else Pause.NEW, self.now())
        self._falls_asleep = level
        self._look(fresh=True)
        self._arm()
        return Until(self._drained, self._drained.count + (self._falls_asleep is not None))

    def wake_up(self, tags: list[str] | None) -> bool:
        """Wake what ``tags`` name; when all is awake the scheduler goes on. Whether it is."""
        awake = self.asleep.end(tags)
        if awake:
            self._timeline.pause(Pause.NO, self.now())
            self._look(fresh=False)
            self._arm()
        return awake

    @property
    def is_sleeping(self) -> bool:
        """Whether anything is asleep or the scheduler is paused."""
        return self.model.pause is not Pause.NO or self.asleep.level is not None

    def render_metrics(self, wall_s: float) -> bytes:
        """What /metrics says now."""
        if self._merged and self._hung_at is None:
            self._tick()  # as of the latest step, and not of the latest that something happened in
        return self.metrics.render(self.base, self._gauges)

    def state(self) -> dict[str, Any]:
        """What vLLM does not tell, for tests."""
        model = self.model
        return {
            "running": model.running,
            "waiting_capacity": model.waiting_capacity,
            "waiting_deferred": model.waiting_deferred,
            "resident": list(model.loras.resident),
            "pooled": list(model.loras.pooled),
            "swaps": model.loras.swaps,
            "disk_loads": model.loras.disk_loads,
            "evictions": model.loras.evictions,
        }

    def _key(self, name: str) -> str:
        loads = self._loads[name]
        return f"{name}#{loads}" if loads > 1 else name

    def _arm(self) -> None:
        now, due = self.now(), self._timeline.due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._call_later is not None and self._hung_at is None and due < math.inf:
            self._timer_due = max(min(due, now + MERGED_S) if self._merged else due, now)
            self._timer = self._call_later(self._timer_due - now, self._tick)

    def _tick(self) -> None:
        steps = self._timeline.advance(self.now())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        for step in steps:
            self._tell(step)
        if steps:
            self._look(fresh=True)
        self._arm()

    def _tell(self, step: EngineStep) -> None:
        metrics, now = self.metrics, step.ended_s
        computed = step.prefill_tokens + len(step.tokens) - len(step.first_tokens)
        metrics.step_tokens.observe(computed, times=step.steps)
        for id in step.started:
            if (flight := self._by_id.get(id)) is not None and flight.started is None:
                flight.started = step.began_s
        grown: dict[ModelledFlight, None] = {}
        for id in step.tokens:
            # One that was aborted while the step ran is not told.
            if (flight := self._by_id.get(id)) is None:
                continue
            before = flight.counts[id]
            flight.counts[id] = before + step.steps
            grown[flight] = None
            metrics.generation_tokens += min(step.steps, max(flight.tokens - before, 0))
            if flight.first is None:
                flight.first = now
                metrics.ttft.observe(now - flight.began)
                metrics.prompt_tokens += flight.prompt_tokens
                self._told[flight.model] += 1
            elif id not in step.first_tokens:
                metrics.inter_token.observe((now - flight.latest) / step.steps, times=step.steps)
        for id in step.finished:
            if (flight := self._by_id.pop(id, None)) is not None:
                flight.left -= 1
                if not flight.left:
                    self._forget(flight)
                    metrics.finish(self._account(flight, flight.finish, now))
        for flight in grown:
            flight.latest = now
            flight.signal.reach(min(flight.counts.values()))

    def _account(self, flight: ModelledFlight, reason: str, now: float) -> Finished:
        started = flight.started if flight.started is not None else now
        first = flight.first if flight.first is not None else now
        generated = min(sum(flight.counts.values()), flight.tokens * len(flight.counts))
        return Finished(
            reason,
            flight.prompt_tokens,
            generated,
            e2e_s=now - flight.began,
            queue_s=started - flight.began,
            prefill_s=first - started,
            decode_s=now - first,
        )

    def _abort(self, flight: ModelledFlight) -> None:
        self._take_out(flight)
        self.metrics.finish(self._account(flight, "abort", self.now()))
        flight.aborted = True
        flight.signal.reach(flight.wanted)

    def _take_out(self, flight: ModelledFlight) -> None:
        there = [id for id in flight.counts if self._by_id.pop(id, None) is not None]
        for id in there:
            self._timeline.abort(id, self.now())
        if there:
            self._forget(flight)
            self._look(fresh=self._hung_at is None)

    def _forget(self, flight: ModelledFlight) -> None:
        if flight.first is not None:
            self._told[flight.model] -= 1
            if not self._told[flight.model]:
                del self._told[flight.model]

    def _look(self, *, fresh: bool) -> None:
        """Fall asleep if nothing is in the way any more, and set the gauges: all of them when a step has ended."""
        model = self.model
        if self._falls_asleep is not None and (not model.running or model.pause is Pause.ALL):
            self.asleep.begin(self._falls_asleep)
            self._falls_asleep = None
            self._drained.reach(self._drained.count + 1)
        if not fresh:
            self._gauges = replace(self._gauges, sleep_level=self.asleep.level)
            return
        self._gauges = Gauges(
            model.running, model.waiting_capacity, model.waiting_deferred, model.kv_usage, self.asleep.level
        )
        self.metrics.preemptions = model.preemptions
        # Adapters are known to this metric once they have a first token, which is one of its flaws.
        adapters = [name for name in self._told if name in self.adapters]
        self.metrics.note_loras(self.max_loras, adapters, self._wall())
