"""A box as the gateway sees it now: its connections, what is in flight, what its breakers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.errors import BoxEjected, ConnectError, ConnectTimeout, Reason, UpstreamError, UpstreamTimeout
from gateway.fleet.blame import Blame, blame, is_one_adapters
from gateway.fleet.breaker import THRESHOLD, Breaker, State
from gateway.fleet.duty import Duty
from gateway.fleet.in_flight import InFlight
from gateway.fleet.pair import Pair
from gateway.fleet.permit import Permit
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
        self.attempts = InFlight()
        self.duty = Duty()
        self.pending: set[Exchange] = set()
        """What waits for its first content, or for its whole answer where that is plain."""
        self.watch: Watch | None = None
        self.last_probe: ProbeResult | None = None
        self.last_error = ""
        """What the last failure that counted against the box was."""
        self.last_life: float | None = None
        """When the box last gave a sign of life."""
        self.breaker = Breaker(on_change=self._breaker_changed)
        self._pairs: dict[str | None, Pair] = {}
        self._failing: set[str] = set()
        self._heads: dict[str, bytes] = {}
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._last_error: type[UpstreamError] | None = None
        self._opened_by_silence = False
        self._retired = False
        self._told: State = "closed"

    @property
    def name(self) -> str:
        """The box's name in the fleet's YAML."""
        return self.spec.name

    @property
    def in_flight(self) -> int:
        """Attempts that were sent and have not ended."""
        return self.attempts.total

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
        if pair is not None and (why_not := pair.condition(now)) is not None:
            return why_not
        if (why_not := self.duty.condition) is not None:
            return why_not
        return None if self.breaker.admits(now) else Reason.CIRCUIT_OPEN

    def has_its_share(self, now: float) -> bool:
        """Whether the box comes back, and has as much as is good for it: others are to be asked first."""
        return self.duty.has_its_share(self.in_flight, now)

    def admit(self, adapter: str | None, now: float, *, force: bool = False, probe: bool = False) -> Permit | None:
        """Let an attempt for ``adapter`` in and count it, or None.

        ``force`` asks in spite of an open breaker; ``probe`` also where an operator has drained the box.
        """
        if probe:
            force = True
        elif self.duty.drained or (not force and self.condition(adapter, now) is not None):
            return None
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
        self.attempts.began(adapter)
        return Permit(self, adapter, now, box_permit, pair_permit)

    def eject(self, now: float, why: str, *, silent: bool = True) -> None:
        """The box hangs, or is gone: open its breaker and end the attempts that wait on it."""
        error = BoxEjected(why)
        if not silent:
            error.reason = Reason.BACKEND_DOWN
        self._remember(error)
        self.breaker.trip(now)
        self._opened_by_silence = silent
        self.duty.away()
        pending = tuple(self.pending)
        self._events.add("box_ejected", box=self.name, why=why, pending=len(pending))
        for attempt in pending:
            attempt.abort(error)

    def drain(self) -> None:
        """An operator takes the box off duty: nothing new goes there, what runs goes on."""
        if not self.duty.drained:
            self.duty.drain()
            self._events.add("box_drained", box=self.name, in_flight=self.in_flight)

    def undrain(self, now: float) -> None:
        """The box is on duty again, in a ramp."""
        if self.duty.drained:
            self.duty.undrain(now)
            self._events.add("box_undrained", box=self.name)

    def missing_adapters(self) -> dict[str, float]:
        """The adapters this box said it does not have, each with the time from which it is asked again."""
        return {adapter or BASE: pair.breaker.retry_at for adapter, pair in self._pairs.items() if pair.missing}

    def lacks_overdue(self, now: float) -> bool:
        """Whether it is time to look if an adapter that it lacked is there again."""
        return any(pair.missing and pair.breaker.retry_at <= now for pair in self._pairs.values())

    def lists_adapters(self, names: frozenset[str]) -> None:
        """The box says that it has these: whoever was missing is asked for again."""
        for adapter in [adapter for adapter, pair in self._pairs.items() if pair.missing and adapter in names]:
            self._forget_pair(adapter)

    def failing_adapters(self) -> dict[str, float]:
        """The adapters that fail on this box in some other way, likewise."""
        return {
            adapter or BASE: pair.breaker.retry_at
            for adapter, pair in self._pairs.items()
            if not pair.missing and not pair.breaker.closed
        }

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

    def answered(self, permit: Permit, now: float) -> None:
        """Content came: the box lives and has the adapter."""
        if not permit.answered:
            self.attempts.answered()
        self.last_life = now
        self.duty.answered(now)
        self._authorized()
        self._failing.clear()
        permit.box_permit.succeeded(now)
        if permit.pair_permit is not None:
            permit.pair_permit.succeeded(now)
        pair = self._pairs.get(permit.adapter)
        if pair is not None and pair.breaker.closed:
            self._forget_pair(permit.adapter)

    def progressed(self, now: float) -> None:
        """More of an answer came."""
        self.last_life = now

    def failed(self, permit: Permit, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``: :func:`gateway.fleet.blame.blame` says which breaker that moves."""
        verdict = blame(error)
        match verdict:
            case Blame.CLIENT:
                self.last_life = now
                self.duty.answered(now)
                permit.box_permit.succeeded(now)
            case Blame.PAIR:
                self.duty.answered(now)
                self._lacks(permit, error, now)
            case Blame.BOX:
                self._remember(error)
                self._box_or_adapter_failed(permit, error, now)
            case Blame.BOX_REFUSES | Blame.BOX_UNAUTHORIZED:
                self._remember(error)
                permit.box_permit.failed(now, weight=THRESHOLD)
            case Blame.NOBODY | Blame.LOAD:
                pass
        if verdict is Blame.BOX_UNAUTHORIZED:
            self._unauthorized(error)

    def ended(self, permit: Permit) -> None:
        """The attempt is over."""
        self.attempts.ended(permit.adapter, answered=permit.answered)

    # Inside.

    def _remember(self, error: UpstreamError) -> None:
        # The text only: an exception would keep its traceback alive, and with it the request.
        self.last_error = str(error)[:MAX_ERROR_CHARS]
        self._last_error = type(error)

    def _box_or_adapter_failed(self, permit: Permit, error: UpstreamError, now: float) -> None:
        """What only one adapter's attempts run into is that adapter's, and once the box's, who would be told of it."""
        adapter = permit.adapter
        if adapter is not None and is_one_adapters(error):
            self._pair(adapter).failed(permit.pair_permit, now)
            if adapter in self._failing:
                return
            self._failing.add(adapter)
        permit.box_permit.failed(now)

    def _lacks(self, permit: Permit, error: UpstreamError, now: float) -> None:
        if self._retired:
            return
        pair = self._pair(permit.adapter)
        if not pair.missing:
            name = permit.adapter or BASE
            self._alarms.on("adapter_missing", f"{self.name}/{name}", f"box {self.name} has no {name}: {error}")
        pair.lacks(permit.pair_permit, now)

    def _pair(self, adapter: str | None) -> Pair:
        pair = self._pairs.get(adapter)
        if pair is None:
            pair = self._pairs[adapter] = Pair(self._pair_changed)
        return pair

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
            # Now it is the box's fault, and not that of each adapter on it.
            for adapter in [adapter for adapter, pair in self._pairs.items() if not pair.missing]:
                del self._pairs[adapter]
        if state == "open" and self._last_error is not None:
            self._opened_by_silence = issubclass(self._last_error, UpstreamTimeout | ConnectTimeout | BoxEjected)
            if self._opened_by_silence or issubclass(self._last_error, ConnectError):
                self.duty.away()
        # A trial that fails is no news: of a box that is down for an hour one event is enough.
        if state != "half_open" and state != self._told and not self._retired:
            self._told = state
            why = {"why": self.last_error} if state == "open" else {}
            self._events.add("box_state", box=self.name, state=state, **why)
        if self.watch is not None:
            self.watch.set()

    def _pair_changed(self, state: State) -> None:
        self._metrics.breaker_transitions.inc(f"{self.name}/*", state)
