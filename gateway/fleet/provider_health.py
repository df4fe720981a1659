"""A hosted provider as the gateway sees it now, as a pure state machine: time is handed in, nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Literal, Self

from gateway.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorFrame,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet import breaker as circuit
from gateway.fleet.back_off import BackOff, Turn
from gateway.fleet.blame import MAX_ERROR_CHARS

ProviderState = Literal["closed", "open", "half_open", "backing_off"]
"""Those of its breaker, and ``backing_off`` while it is left alone because it said that it has too much to do."""

STREAM_PATIENCE_S = 1.0
PLAIN_PATIENCE_S = 8.0
"""Silence for less says nothing about a provider, only about the one customer's deadline (invariant I6): hosted models
take up to a second to their first token, and some fifty tokens a second from there; a tool call has up to 400."""


class ProviderBlame(Enum):
    """What an error says about the provider."""

    NOBODY = auto()
    """Nothing: our own limit, our translation, or one customer's model or request."""
    LOAD = auto()
    """It has too much to do, which is not a failure."""
    FAILURE = auto()
    """It failed."""
    UNAUTHORIZED = auto()
    """It refuses our key: a person has to act, and there is no use in asking twice."""


def provider_blame(error: UpstreamError, *, by_worker: bool = False) -> ProviderBlame:
    """What ``error``, got from a provider, says about it. ``by_worker``: it was asked through the LiteLLM worker,
    whose connections are no provider's.
    """
    if error.source == "gateway" or (by_worker and isinstance(error, ConnectError | ConnectionLost)):
        return ProviderBlame.NOBODY
    if isinstance(error, UpstreamStatus):
        return _of_status(error.status, names_a_time=error.retry_after_s is not None)
    if isinstance(error, ErrorFrame) and error.status is not None:
        return _of_status(error.status, names_a_time=False)
    return ProviderBlame.FAILURE


def _of_status(status: int, *, names_a_time: bool) -> ProviderBlame:
    match status:
        case 401 | 403:
            return ProviderBlame.UNAUTHORIZED
        case 429:
            return ProviderBlame.LOAD
        case 503 | 529 if names_a_time:
            return ProviderBlame.LOAD
        case 402 | 408:
            # The account is empty, or it waited for us in vain: nobody's request will fare better.
            return ProviderBlame.FAILURE
        case _ if 400 <= status < 500:
            return ProviderBlame.NOBODY
        case _:
            return ProviderBlame.FAILURE


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """All that is learned of a provider from a failed attempt; see :class:`gateway.fleet.blame.Failure`.

    ``named_s``: seconds that it asked to be left alone for. ``silent``: nothing came in time. ``impatient``: the time
    was too short for that to say anything.
    """

    blame: ProviderBlame
    named_s: float | None
    silent: bool
    impatient: bool
    text: str


class ProviderHealth:
    """One provider's breaker and back-off. ``on_change`` hears of each new state, also when a wait is followed by the
    next one.
    """

    __slots__ = ("_on_change", "_silent", "back_off", "breaker", "last_error", "name")

    def __init__(self, name: str, on_change: Callable[[ProviderState], None] | None = None) -> None:
        self.name = name
        self.back_off = BackOff()
        self.breaker = circuit.Breaker(on_change=self._changed)
        self.last_error = ""
        """What its last failure was."""
        self._silent = False
        self._on_change = on_change

    def state(self, now: float) -> ProviderState:
        """As people are shown it."""
        state = self.breaker.state(now)
        if state == "open":
            return "open"
        if self.back_off.waits(now):
            return "backing_off"
        return "half_open" if self.back_off.until is not None else state

    @property
    def retry_at(self) -> float | None:
        """From when on it may be asked again; None where nothing keeps anybody from it."""
        times = [] if self.breaker.closed else [self.breaker.retry_at]
        if self.back_off.until is not None:
            times.append(self.back_off.until)
        return max(times, default=None)

    def condition(self, now: float) -> str | None:
        """None where it may be asked; else why not, in words that a client may read."""
        if not self.back_off.admits(now):
            return "it is busy"
        return None if self.breaker.admits(now) else "circuit open"

    def is_last_resort(self, now: float) -> bool:
        """Whether it may be asked in spite of its condition, where nothing else is left: never while it is to be left
        alone, nor where it failed by silence, which would cost the time it cost before.
        """
        if self.back_off.waits(now):
            return False
        return not self._silent or self.breaker.admits(now)

    def admit(
        self, now: float, *, streamed: bool, by_worker: bool = False, force: bool = False
    ) -> ProviderPermit | None:
        """Let an attempt in, or None. ``force``: as the last resort."""
        turn = self.back_off.begin(now, force=force)
        if turn is None:
            return None
        permit = self.breaker.begin(now, force=force)
        if permit is None:
            turn.released()
            return None
        return ProviderPermit(self, turn, permit, now, streamed=streamed, by_worker=by_worker)

    @property
    def silent(self) -> bool:
        """Whether what it did last was to be silent."""
        return self._silent

    def retire(self) -> None:
        """It left the policy: nobody is to hear of it any more."""
        self._on_change = None

    # What permits call.

    def answered(self, permit: ProviderPermit, now: float) -> None:
        """Content came."""
        was_closed = self.breaker.closed
        permit.circuit.succeeded(now)
        if permit.turn.succeeded() and was_closed:
            self._changed("closed")

    def failed(self, permit: ProviderPermit, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``."""
        failure = ProviderFailure(
            provider_blame(error, by_worker=permit.by_worker),
            error.retry_after_s if isinstance(error, UpstreamStatus) else None,
            isinstance(error, UpstreamTimeout | ConnectTimeout),
            permit.was_impatient(error, now),
            error.for_watchers[:MAX_ERROR_CHARS],
        )
        self.learned(permit, failure, now)

    def learned(self, permit: ProviderPermit, failure: ProviderFailure, now: float) -> None:
        """What an attempt's end says about it."""
        match failure.blame:
            case ProviderBlame.LOAD:
                if permit.turn.refused(now, failure.named_s):
                    self.last_error = failure.text
                    self._changed("backing_off")
            case ProviderBlame.UNAUTHORIZED:
                self._remember(failure)
                permit.circuit.failed(now, weight=circuit.THRESHOLD)
            case ProviderBlame.FAILURE:
                self._remember(failure)
                if not failure.impatient:
                    permit.circuit.failed(now)
            case ProviderBlame.NOBODY:
                pass

    def ended(self, permit: ProviderPermit) -> None:
        """The attempt is over, however."""

    # Inside.

    def _remember(self, failure: ProviderFailure) -> None:
        self.last_error = failure.text
        self._silent = failure.silent

    def _changed(self, state: ProviderState) -> None:
        if state == "closed":
            self._silent = False
        if self._on_change is not None:
            self._on_change(state)


class ProviderPermit:
    """An attempt that a provider's breaker and back-off let in: see :class:`gateway.fleet.permit.Held`."""

    __slots__ = ("_began", "_ended", "_health", "_streamed", "answered", "by_worker", "circuit", "turn")

    def __init__(
        self,
        health: ProviderHealth,
        turn: Turn,
        circuit_permit: circuit.Permit,
        began: float,
        *,
        streamed: bool,
        by_worker: bool,
    ) -> None:
        self._health = health
        self._began = began
        self._streamed = streamed
        self._ended = False
        self.answered = False
        self.by_worker = by_worker
        self.turn = turn
        self.circuit = circuit_permit

    def was_impatient(self, error: UpstreamError, now: float) -> bool:
        """Whether it ended with a silence that is too short to say anything."""
        patience_s = STREAM_PATIENCE_S if self._streamed else PLAIN_PATIENCE_S
        return isinstance(error, UpstreamTimeout) and not self.answered and now - self._began < patience_s

    def succeeded(self, now: float) -> None:
        """Content came."""
        if not self._ended:
            self.answered = True
            self._health.answered(self, now)

    def progressed(self, now: float) -> None:
        """More of the answer came, which tells nothing new."""

    def failed(self, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``, before or after its commit."""
        if not self._ended:
            self._health.failed(self, error, now)
            self.released()

    def released(self) -> None:
        """The attempt is over; where nothing else was said, it says nothing about the provider."""
        if not self._ended:
            self._ended = True
            self.turn.released()
            self.circuit.released()
            self._health.ended(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.released()
