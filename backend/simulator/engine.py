"""The engine behind the API: which names it serves, who is running, how long a token takes.

Pure but for the clock that it is handed. This one has room for everybody and one fixed pace; ``ModelledEngine`` stands
in its place where slots, queues and steps matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from backend.simulator.metrics import EngineMetrics, Finished, Gauges
from backend.simulator.steps import Step, Wait


class Timer(Protocol):
    """A call that was put off."""

    def cancel(self) -> object:
        """Do not call."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast tokens come and how many: seconds to the first, seconds between two, the usual number of an answer."""

    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens: int = 16


class Flight:
    """One request in the engine. ``leave`` has to be called once, however it ends."""

    aborted = False
    """The engine itself has ended it before its time."""

    __slots__ = ("_engine", "_finished", "_first", "began", "finish", "model", "prompt_tokens", "tokens")

    def __init__(self, engine: Engine, model: str, prompt_tokens: int, tokens: int, finish: str) -> None:
        self._engine = engine
        self.began = engine.clock()
        self._first: float | None = None
        self.finish = finish
        self._finished = False
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.tokens = tokens

    @property
    def pace(self) -> Pace:
        """Of the engine, where it has a fixed one."""
        return self._engine.pace

    def until_token(self, number: int) -> Iterator[Step]:
        """Wait for the ``number``-th token, from 0; the end counts as one more where the answer ends by itself."""
        pace = self._engine.pace
        if (seconds := pace.itl_s if number else pace.ttft_s) > 0:
            yield Wait(seconds)
        if not number:
            self._first = self._engine.clock()

    def until_whole(self) -> Iterator[Step]:
        """Wait for all tokens."""
        pace = self._engine.pace
        if (seconds := pace.ttft_s + self.tokens * pace.itl_s) > 0:
            yield Wait(seconds)
        self._first = self._engine.clock()
        self.finished()

    def finished(self) -> None:
        """All tokens were made, and told."""
        self._finished = True

    def leave(self) -> None:
        """The request is over, finished or not."""
        engine, metrics = self._engine, self._engine.metrics
        engine.left(self)
        now = engine.clock()
        if self._first is not None:
            metrics.ttft.observe(self._first - self.began)
        if self._finished:
            metrics.generation_tokens += self.tokens
            metrics.inter_token.observe(engine.pace.itl_s, times=self.tokens - 1)
        metrics.prompt_tokens += self.prompt_tokens
        first = self._first if self._first is not None else now
        metrics.finish(
            Finished(
                self.finish if self._finished else "abort",
                self.prompt_tokens,
                self.tokens if self._finished else 0,
                e2e_s=now - self.began,
                queue_s=0.0,
                prefill_s=first - self.began,
                decode_s=now - first,
            )
        )


class Engine:
    """The base and its adapters by name, and the requests in flight."""

    def __init__(
        self,
        *,
        base: str,
        adapters: dict[str, str],
        pace: Pace,
        max_loras: int,
        max_queued: int | None,
        clock: Callable[[], float],
        max_model_len: int = 8192,
    ) -> None:
        self.base = base
        self.adapters = adapters
        self.pace = pace
        self.max_loras = max_loras
        self.max_queued = max_queued
        self.clock = clock
        self.metrics = EngineMetrics(max_model_len=max_model_len)
        self._flights: set[Flight] = set()

    @property
    def running(self) -> int:
        """Requests in flight."""
        return len(self._flights)

    def run_with(self, call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        """``call_later(seconds, what)`` is there from here on, for an engine that does something by itself."""

    def hang(self, hanging: bool) -> None:
        """Stand still, or go on; called again without a change."""

    def state(self) -> dict[str, Any]:
        """What a real one does not tell, for tests."""
        return {"running": self.running}

    def serves(self, model: str) -> bool:
        """Whether ``model`` is the base or an adapter."""
        return model == self.base or model in self.adapters

    def load(self, name: str, path: str) -> float:
        """Serve one more adapter; the seconds that its loading takes."""
        self.adapters[name] = path
        return 0.0

    def unload(self, name: str) -> None:
        """Serve it no more. Raises KeyError for one that is not served."""
        del self.adapters[name]

    def admit(self, model: str, *, prompt_tokens: int, tokens: int, finish: str, sequences: int = 1) -> Flight | None:
        """Take a request in; None when there are as many already as may be waiting and running.

        ``prompt_tokens`` are those of all its ``sequences`` (choices times prompts), ``tokens`` those of each.
        """
        if self.max_queued is not None and self.running >= self.max_queued:
            self.metrics.rejected += 1
            return None
        flight = Flight(self, model, prompt_tokens, tokens, finish)
        self._flights.add(flight)
        return flight

    def left(self, flight: Flight) -> None:
        """``flight`` is over."""
        self._flights.discard(flight)

    def render_metrics(self, wall_s: float) -> bytes:
        """What /metrics says now."""
        running = len(self._flights)
        adapters = sorted({flight.model for flight in self._flights if flight.model in self.adapters})
        self.metrics.note_loras(self.max_loras, adapters, wall_s)
        return self.metrics.render(self.base, Gauges(running=running, kv_usage=min(running / 256, 1.0)))
