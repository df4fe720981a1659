"""A box as the gateway sees it now: its connections, what is in flight, what its breakers say."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from gateway.errors import BoxEjected, ConnectTimeout, Reason, UpstreamError, UpstreamTimeout
from gateway.fleet import breaker as circuit
from gateway.fleet.blame import Blame, blame
from gateway.fleet.breaker import Breaker, State
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import BoxSpec
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Pool

BASE = "(base)"
"""How the base model is named where an adapter's name would stand."""

MAX_ERROR_CHARS = 200
"""Of an error's text, for people; an upstream may have put anything into it."""

ProbeOutcome = Literal["ok", "silent", "refused", "status", "garbage", "busy"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How the last probe went. ``at_s`` is Unix time; ``error`` is empty when it went well."""

    at_s: float
    outcome: ProbeOutcome
    took_s: float
    error: str = ""


class Watch(Protocol):
    """Who has to know at once that the breaker changed."""

    def set(self) -> None:
        """Look again."""


class Box:
    """One vLLM server. Times are those of the event loop's clock, in seconds."""

    def __init__(
        self, spec: BoxSpec, pool: Pool, *, base_model: str, metrics: GatewayMetrics, alarms: Alarms, events: Events
    ) -> None:
        self.spec = spec
        self.pool = pool
        self.base_model = base_model
        self.in_flight = 0
        self.pending_plain: set[Exchange] = set()
        self.watch: Watch | None = None
        self.last_probe: ProbeResult | None = None
        self.last_error = ""
        """What the last failure that counted against the box was."""
        self.last_life: float | None = None
        """When the box last gave a sign of life."""
        self.breaker = Breaker(on_change=self._breaker_changed)
        self._pairs: dict[str | None, Breaker] = {}
        self._heads: dict[str, bytes] = {}
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._last_was_silence = False
        self._opened_by_silence = False
        self._retired = False
        self._told: State = "closed"

    @property
    def name(self) -> str:
        """The box's name in the fleet's YAML."""
        return self.spec.name

    @property
    def probed(self) -> bool:
        """Whether enough is known of the box to take traffic: it was probed once, or never will be."""
        return self.last_probe is not None or self.spec.unavailable is not None

    @property
    def fails_fast(self) -> bool:
        """Whether asking it costs no waiting: its breaker is closed, or opened by refusals or errors."""
        return self.breaker.closed or not self._opened_by_silence

    def head(self, path: str) -> bytes:
        """The request line and headers of a ``POST`` to ``path``, each with its line end; no length, no blank line."""
        head = self._heads.get(path)
        if head is None:
            origin = self.pool.origin
            lines = [
                f"POST {origin.base_path}{path} HTTP/1.1".encode("ascii"),
                b"host: " + origin.host_header,
                b"content-type: application/json",
                b"accept-encoding: identity",
            ]
            if self.spec.api_key is not None:
                lines.append(b"authorization: Bearer " + self.spec.api_key.encode("ascii"))
            head = self._heads[path] = b"".join(line + b"\r\n" for line in lines)
        return head

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        """None where the box may be asked for ``adapter`` (None: for the base); else why not."""
        if self.spec.unavailable is not None:
            return Reason.BACKEND_DOWN
        pair = self._pairs.get(adapter)
        if pair is not None and not pair.admits(now):
            return Reason.ADAPTER_UNAVAILABLE
        if not self.breaker.admits(now):
            return Reason.CIRCUIT_OPEN
        return None

    def admit(self, adapter: str | None, now: float, *, force: bool = False) -> Permit | None:
        """Let an attempt for ``adapter`` in and count it, or None. ``force`` asks in spite of an open breaker."""
        if self.spec.unavailable is not None:
            return None
        pair = self._pairs.get(adapter)
        pair_permit = None
        if pair is not None and (pair_permit := pair.begin(now, force=force)) is None:
            return None
        box_permit = self.breaker.begin(now, force=force)
        if box_permit is None:
            if pair_permit is not None:
                pair_permit.released()
            return None
        self.in_flight += 1
        return Permit(self, adapter, box_permit, pair_permit)

    def eject(self, now: float, why: str) -> None:
        """The box hangs: open its breaker and end the plain attempts that wait on it."""
        error = BoxEjected(why)
        self._remember(error)
        self._opened_by_silence = True
        self.breaker.trip(now)
        pending = tuple(self.pending_plain)
        self._events.add("box_ejected", box=self.name, why=why, pending=len(pending))
        for attempt in pending:
            attempt.abort(error)

    def missing_adapters(self) -> dict[str, float]:
        """The adapters this box said it does not have, each with the time from which it is asked again."""
        return {adapter or BASE: pair.retry_at for adapter, pair in self._pairs.items()}

    def forget_adapters(self, known: frozenset[str]) -> None:
        """Drop what is remembered of adapters that no policy names any more."""
        for adapter in [adapter for adapter in self._pairs if adapter is not None and adapter not in known]:
            self._forget_pair(adapter)

    def retire(self) -> None:
        """The box left the policy: its alarms end, its connections close as the attempts on them end."""
        self._retired = True
        for adapter in list(self._pairs):
            self._forget_pair(adapter)
        self._alarms.off("box_unauthorized", self.name)
        self.pool.retire()

    # What permits call.

    def _lives(self, now: float) -> None:
        self.last_life = now

    def _remember(self, error: UpstreamError) -> None:
        # The text only: an exception would keep its traceback alive, and with it the request.
        self.last_error = str(error)[:MAX_ERROR_CHARS]
        self._last_was_silence = isinstance(error, UpstreamTimeout | ConnectTimeout | BoxEjected)

    def _pair_failed(
        self, adapter: str | None, permit: circuit.Permit | None, error: UpstreamError, now: float
    ) -> None:
        if permit is not None:
            permit.failed(now)
        elif adapter not in self._pairs and not self._retired:
            self._pairs[adapter] = pair = Breaker(threshold=1, on_change=self._pair_changed)
            pair.trip(now)
            name = adapter or BASE
            self._alarms.on("adapter_missing", f"{self.name}/{name}", f"box {self.name} has no {name}: {error}")

    def _pair_succeeded(self, adapter: str | None, permit: circuit.Permit) -> None:
        permit.succeeded()
        pair = self._pairs.get(adapter)
        if pair is not None and pair.closed:
            self._forget_pair(adapter)

    def _forget_pair(self, adapter: str | None) -> None:
        del self._pairs[adapter]
        self._alarms.off("adapter_missing", f"{self.name}/{adapter or BASE}")

    def _unauthorized(self, error: UpstreamError) -> None:
        if not self._retired:
            self._alarms.on(
                "box_unauthorized", self.name, f"box {self.name} refuses our key ({error}): check its api_key"
            )

    def _authorized(self) -> None:
        self._alarms.off("box_unauthorized", self.name)

    def _breaker_changed(self, state: State) -> None:
        self._metrics.breaker_transitions.inc(self.name, state)
        if state == "open":
            self._opened_by_silence = self._last_was_silence
        # A trial that fails is no news: of a box that is down for an hour one event is enough.
        if state != "half_open" and state != self._told and not self._retired:
            self._told = state
            why = {"why": self.last_error} if state == "open" else {}
            self._events.add("box_state", box=self.name, state=state, **why)
        if self.watch is not None:
            self.watch.set()

    def _pair_changed(self, state: State) -> None:
        self._metrics.breaker_transitions.inc(f"{self.name}/*", state)


class Permit:
    """An attempt that a box let in: counted in flight until ``failed`` or ``released``, whichever comes first.

    ``succeeded`` is told at commit; the stream behind it may still fail. As a context manager it is released at the
    end.
    """

    __slots__ = ("_adapter", "_box", "_box_permit", "_ended", "_pair_permit")

    def __init__(
        self, box: Box, adapter: str | None, box_permit: circuit.Permit, pair_permit: circuit.Permit | None
    ) -> None:
        self._box = box
        self._adapter = adapter
        self._box_permit = box_permit
        self._pair_permit = pair_permit
        self._ended = False

    def succeeded(self, now: float) -> None:
        """Content came: the box lives and has the adapter."""
        if self._ended:
            return
        box = self._box
        box._lives(now)
        box._authorized()
        self._box_permit.succeeded()
        if self._pair_permit is not None:
            box._pair_succeeded(self._adapter, self._pair_permit)

    def progressed(self, now: float) -> None:
        """More of the answer came: a box at work on long answers is not silent, and needs no probe."""
        self._box._lives(now)

    def failed(self, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``; :func:`gateway.fleet.blame.blame` says which breaker that moves."""
        if self._ended:
            return
        box = self._box
        verdict = blame(error)
        match verdict:
            case Blame.CLIENT:
                box._lives(now)
                self._box_permit.succeeded()
            case Blame.PAIR:
                box._pair_failed(self._adapter, self._pair_permit, error, now)
            case Blame.BOX:
                box._remember(error)
                self._box_permit.failed(now)
            case Blame.BOX_REFUSES | Blame.BOX_UNAUTHORIZED:
                box._remember(error)
                self._box_permit.failed(now, weight=circuit.THRESHOLD)
            case Blame.NOBODY | Blame.LOAD:
                pass
        if verdict is Blame.BOX_UNAUTHORIZED:
            box._unauthorized(error)
        self.released()

    def released(self) -> None:
        """The attempt is over; where nothing else was said, it says nothing about the box."""
        if self._ended:
            return
        self._ended = True
        self._box_permit.released()
        if self._pair_permit is not None:
            self._pair_permit.released()
        self._box.in_flight -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.released()
