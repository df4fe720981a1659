"""A box as the gateway sees it now: its connections, what is in flight, what its breakers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.errors import BoxEjected, Reason, UpstreamError, UpstreamTimeout
from gateway.fleet.blame import Blame, Failure
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.breaker import THRESHOLD, Breaker, State
from gateway.fleet.duty import Duty
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.obstacle import OF_PAIR, Obstacle
from gateway.fleet.pairs import Pairs
from gateway.fleet.permit import Permit
from gateway.fleet.probe_result import ProbeResult
from gateway.fleet.request_head import request_head
from gateway.fleet.suspects import Suspects
from gateway.observe.actor import UNKNOWN, Actor
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import BoxSpec
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Pool


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
        self.load = BoxLoad(spec.max_loras)
        self.duty = Duty()
        self.drained_by = UNKNOWN
        self.pending: set[Exchange] = set()
        """What waits for its first content, or for its whole answer where that is plain."""
        self.watch: Watch | None = None
        self.on_room: Callable[[Box], None] | None = None
        """Told when there may be room, while somebody waits for it."""
        self.suspects: Suspects | None = None
        """Told what may have ended this box; None where another process finds that out."""
        self.last_probe: ProbeResult | None = None
        self.last_error = ""
        """What the last failure that counted against the box was."""
        self.last_life: float | None = None
        """When the box last gave a sign of life."""
        self.breaker = Breaker(on_change=self._breaker_changed)
        self.pairs = Pairs(spec.name, alarms, self._pair_changed)
        self._failing: set[str] = set()
        self._refuses_key = False
        self._heads: dict[str, bytes] = {}
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._last_failure: Failure | None = None
        self._opened_by_silence = False
        self._retired = False
        self._probes = 0
        self._told: State = "closed"

    @property
    def name(self) -> str:
        """The box's name in the fleet's YAML."""
        return self.spec.name

    @property
    def in_flight(self) -> int:
        """Attempts that were sent and have not ended."""
        return self.load.attempts.total

    @property
    def customers_in_flight(self) -> int:
        """Those of them that are customers': a probe is nothing that anybody's maintenance has to wait for."""
        return self.in_flight - self._probes

    @property
    def probed(self) -> bool:
        """Whether enough is known of the box to take traffic: it was probed once, or never will be."""
        return self.last_probe is not None or self.spec.unavailable is not None

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a first content from it."""
        return bool(self.pending)

    @property
    def fails_fast(self) -> bool:
        """Whether asking it costs no waiting: its breaker is closed, or opened by refusals or errors."""
        return self.breaker.closed or not self._opened_by_silence

    def head(self, path: str) -> bytes:
        """The request line and headers of a ``POST`` to ``path``, each with its line end; no length, no blank line."""
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = request_head(
                "POST", self.pool.origin, path, api_key=self.spec.api_key, header=b"content-type: application/json"
            )
        return head

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        """None where the box may be asked for ``adapter`` (None: for the base); else why not."""
        obstacle = self.obstacle(adapter, now)
        return None if obstacle is None else obstacle.reason

    def obstacle(self, adapter: str | None, now: float) -> Obstacle | None:
        """The same, as precisely as operators are told."""
        if self.spec.unavailable is not None:
            return Obstacle.NOT_CONFIGURED
        duty = self.duty
        # Before all else: what an operator took off is not even a last resort.
        if duty.drained:
            return Obstacle.DRAINED
        if self.pairs.known and (fault := self.pairs.fault(adapter, now)) is not None:
            return OF_PAIR[fault]
        if not duty.on:
            return Obstacle.AWAY
        return None if self.breaker.admits(now) else Obstacle.CIRCUIT_OPEN

    def has_its_share(self, now: float) -> bool:
        """Whether the box comes back, and has as much as is good for it: others are to be asked first."""
        duty = self.duty
        return duty.ramps and duty.has_its_share(self.in_flight, now)

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        """Whether a request for ``adapter`` would see its first token too late, or enough run as it is."""
        return self.load.saturated(adapter, budget_s, now)

    def admit(
        self, adapter: str | None, now: float, *, streamed: bool = False, force: bool = False, probe: bool = False
    ) -> Permit | None:
        """Let an attempt for ``adapter`` in and count it, or None. ``streamed``: its first content will be seen.

        ``force`` asks in spite of an open breaker; ``probe`` also where an operator has drained the box.
        """
        if probe:
            force = True
        elif not self.duty.on and (self.duty.drained or not force):
            return None
        if self.spec.unavailable is not None:
            return None
        pair_permit = None
        if adapter in self.pairs.known and (pair_permit := self.pairs.begin(adapter, now, force=force)) is None:
            return None
        box_permit = self.breaker.begin(now, force=force)
        if box_permit is None:
            if pair_permit is not None:
                pair_permit.released()
            return None
        load = self.load
        swaps = load.slots.swaps
        silent_before, in_flight = load.began(adapter, streamed=streamed)
        if load.slots.swaps != swaps:
            self._metrics.box_predicted_swaps.inc(self.name)
        self._probes += probe
        if load.turns.denied_since:
            load.turns.served(adapter)
        return Permit(self, adapter, now, box_permit, pair_permit, streamed, silent_before, in_flight, probe)

    def eject(self, now: float, why: str, *, silent: bool = True) -> None:
        """The box hangs, or is gone: open its breaker and end the attempts that wait on it."""
        error = BoxEjected(why)
        if not silent:
            error.reason = Reason.BACKEND_DOWN
        self._remember(Failure.of(error))
        self.breaker.trip(now)
        self._opened_by_silence = silent
        self.duty.away()
        pending = tuple(self.pending)
        self._events.add("box_ejected", box=self.name, why=why, pending=len(pending))
        for attempt in pending:
            attempt.abort(error)

    def drain(self, actor: Actor = UNKNOWN) -> None:
        """An operator takes the box off duty: nothing new goes there, what runs goes on."""
        if not self.duty.drained:
            self.duty.drain()
            self.drained_by = actor
            self._events.add("box_drained", box=self.name, in_flight=self.in_flight, by=actor.by, user=actor.user)

    def undrain(self, now: float, actor: Actor = UNKNOWN) -> None:
        """The box is on duty again, in a ramp."""
        if self.duty.drained:
            self.duty.undrain(now)
            self.drained_by = UNKNOWN
            self._events.add("box_undrained", box=self.name, by=actor.by, user=actor.user)

    def read(self, reading: EngineReading) -> None:
        """Its metrics were read."""
        self.load.read(reading)

    def listed(self, names: frozenset[str]) -> None:
        """It says that it has these adapters."""
        self.pairs.listed(names)

    def suspect(self, adapter: str, now: float, for_s: float) -> None:
        """The adapter may be what ends boxes: for so long it is not asked for here, and then by one at a time."""
        self.pairs.suspect(adapter, now, for_s)

    def trust(self, adapter: str) -> None:
        """It is not."""
        self.pairs.trust(adapter)

    def hold(self, adapter: str, now: float) -> None:
        """It is being loaded, and has to answer before customers are sent there: until :meth:`let` it is missing."""
        self.pairs.hold(adapter, now)

    def let(self, adapter: str, *, answers: bool) -> None:
        """That is over: it ``answers``, or it is on the box no more."""
        self.pairs.let(adapter, answers=answers)

    def retire(self) -> None:
        """The box left the policy: its alarms end, its connections close as the attempts on them end."""
        self._retired = True
        self.pairs.forget_all()
        self._alarms.off("box_unauthorized", self.name)
        self.pool.retire()

    # What permits call.

    def answered(self, permit: Permit, now: float) -> None:
        """Content came: the box lives and has the adapter."""
        if permit.streamed and not permit.answered:
            self.load.first_content(permit, now)
            self.load.attempts.answered()
        self.last_life = now
        # A healthy box has nothing to be cleared of, and this runs for every request.
        if not self.duty.on:
            self.duty.answered(now)
        if self._refuses_key:
            self._authorized()
        if self._failing:
            self._failing.clear()
        permit.box_permit.succeeded(now)
        if self.pairs.known:
            self.pairs.answered(permit.adapter, permit.pair_permit, now)
        if self.suspects is not None and permit.adapter in self.suspects.known:
            self.suspects.answered(permit.adapter)

    def progressed(self, now: float) -> None:
        """More of an answer came."""
        self.last_life = now

    def failed(self, permit: Permit, error: UpstreamError, now: float) -> None:
        """The attempt ended with ``error``: :func:`gateway.fleet.blame.blame` says which breaker that moves."""
        if isinstance(error, UpstreamTimeout) and not permit.answered and self.duty.condition is None:
            self.load.gave_up(permit, now)
        self.learned(permit, Failure.of(error, answered=permit.answered), now)

    def learned(self, permit: Permit, failure: Failure, now: float) -> None:
        """What the attempt's end says about the box, and about the adapter there."""
        match failure.blame:
            case Blame.CLIENT:
                self.last_life = now
                self.duty.answered(now)
                permit.box_permit.succeeded(now)
            case Blame.PAIR:
                self.duty.answered(now)
                if not self._retired:
                    self.pairs.lacks(permit.adapter, permit.pair_permit, failure.text, now)
            case Blame.BOX:
                self._remember(failure)
                self._box_or_adapter_failed(permit, failure, now)
            case Blame.BOX_REFUSES | Blame.BOX_UNAUTHORIZED:
                self._remember(failure)
                permit.box_permit.failed(now, weight=THRESHOLD)
            case Blame.NOBODY | Blame.LOAD:
                pass
        if failure.deadly and permit.adapter is not None and self.suspects is not None:
            self.suspects.lost(self.name, permit.adapter, now, down=not self.breaker.closed)
        if failure.blame is Blame.BOX_UNAUTHORIZED:
            self._unauthorized(failure.text)

    def ended(self, permit: Permit) -> None:
        """The attempt is over."""
        self._probes -= permit.probe
        self.load.attempts.ended(permit.adapter, silent=permit.streamed and not permit.answered)
        if self.on_room is not None:
            self.on_room(self)

    # Inside.

    def _remember(self, failure: Failure) -> None:
        self.last_error = failure.text
        self._last_failure = failure

    def _box_or_adapter_failed(self, permit: Permit, failure: Failure, now: float) -> None:
        """What only one adapter's attempts run into is that adapter's, and once the box's, who would be told of it."""
        adapter = permit.adapter
        # Late failures of an outage that the box was found to be at fault for are not the adapter's.
        if adapter is not None and failure.one_adapters and permit.box_permit.epoch == self.breaker.epoch:
            self.pairs.failed(adapter, permit.pair_permit, now)
            if adapter in self._failing:
                return
            self._failing.add(adapter)
        permit.box_permit.failed(now)

    def _unauthorized(self, why: str) -> None:
        if not self._retired:
            self._refuses_key = True
            told = f"box {self.name} refuses our key ({why}): check its api_key"
            self._alarms.on("box_unauthorized", self.name, told)

    def _authorized(self) -> None:
        self._refuses_key = False
        self._alarms.off("box_unauthorized", self.name)

    def _breaker_changed(self, state: State) -> None:
        self._metrics.breaker_transitions.inc(self.name, state)
        if state == "open":
            self.pairs.blame_the_box()
            if self.suspects is not None and self.breaker.opened_at is not None:
                self.suspects.went_down(self.name, self.breaker.opened_at)
        elif state == "closed" and self.suspects is not None:
            self.suspects.came_up(self.name)
        if state == "open" and self._last_failure is not None:
            self._opened_by_silence = self._last_failure.silent
            if self._opened_by_silence or self._last_failure.unreached:
                self.duty.away()
                # Whoever answers there next may be another server, or the same one with nothing loaded.
                self.load.restarted()
        # A trial that fails is no news: of a box that is down for an hour one event is enough.
        if state != "half_open" and state != self._told and not self._retired:
            self._told = state
            self._events.add(
                "box_state", box=self.name, state=state, **({"why": self.last_error} if state == "open" else {})
            )
        if self.watch is not None:
            self.watch.set()

    def _pair_changed(self, state: State) -> None:
        self._metrics.breaker_transitions.inc(f"{self.name}/*", state)
