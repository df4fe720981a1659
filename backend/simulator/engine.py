"""The engine behind the API: which names it serves, who is running, how long a token takes.

Pure but for the clock that it is handed. This one has room for everybody and one fixed pace; a model of LoRA slots and
a scheduler fits in behind the same calls, as an answer asks for each wait when it comes to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.simulator.metrics import EngineMetrics


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast tokens come and how many: seconds to the first, seconds between two, the usual number of an answer."""

    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens: int = 16


class Flight:
    """One request in the engine. ``leave`` has to be called once, however it ends."""

    __slots__ = ("_began", "_engine", "_finish", "_finished", "_first", "model", "prompt_tokens", "tokens")

    def __init__(self, engine: Engine, model: str, prompt_tokens: int, tokens: int, finish: str) -> None:
        self._engine = engine
        self._began = engine.clock()
        self._first: float | None = None
        self._finish = finish
        self._finished = False
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.tokens = tokens

    def first_token_s(self) -> float:
        """Seconds from here to the first token."""
        return self._engine.pace.ttft_s

    def next_token_s(self) -> float:
        """Seconds from one token to the next."""
        return self._engine.pace.itl_s

    def whole_s(self) -> float:
        """Seconds from here to the end of the answer."""
        return self._engine.pace.ttft_s + self.tokens * self._engine.pace.itl_s

    def first_token(self) -> None:
        """The first token is there."""
        self._first = self._engine.clock()

    def finished(self) -> None:
        """All tokens were made."""
        self._finished = True

    def leave(self) -> None:
        """The request is over, finished or not."""
        engine, metrics = self._engine, self._engine.metrics
        engine.left(self)
        now = engine.clock()
        if self._first is not None:
            metrics.ttft.observe(self._first - self._began)
        if self._finished:
            metrics.generation_tokens += self.tokens
            metrics.inter_token.observe(engine.pace.itl_s, times=self.tokens - 1)
        metrics.prompt_tokens += self.prompt_tokens
        metrics.queue_time.observe(0.0)
        metrics.e2e.observe(now - self._began)
        metrics.finished[self._finish if self._finished else "abort"] += 1


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
    ) -> None:
        self.base = base
        self.adapters = adapters
        self.pace = pace
        self.max_loras = max_loras
        self.max_queued = max_queued
        self.clock = clock
        self.metrics = EngineMetrics()
        self._flights: set[Flight] = set()

    @property
    def running(self) -> int:
        """Requests in flight."""
        return len(self._flights)

    def serves(self, model: str) -> bool:
        """Whether ``model`` is the base or an adapter."""
        return model == self.base or model in self.adapters

    def running_adapters(self) -> list[str]:
        """The adapters of the requests in flight."""
        return sorted({flight.model for flight in self._flights if flight.model in self.adapters})

    def admit(self, model: str, *, prompt_tokens: int, tokens: int, finish: str) -> Flight | None:
        """Take a request in; None when there are as many already as may be waiting and running."""
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
        return self.metrics.render(self.base, self.running, self.max_loras, self.running_adapters(), wall_s)
