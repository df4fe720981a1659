"""How busy a box is, and what a request would see there: the gateway's own counts beside the box's metrics."""

from __future__ import annotations

from typing import Protocol

from gateway.fleet.concurrency_limit import ConcurrencyLimit
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import EngineHistory, EnginePace
from gateway.fleet.estimate import STALE_S, Estimate, OwnLoad, estimate
from gateway.fleet.in_flight import InFlight
from gateway.fleet.saturation import Saturation
from gateway.fleet.slot_model import SlotModel
from gateway.fleet.ttft import TtftHistory
from gateway.fleet.turns import Turns

CALM_S = 0.02
CALM_MORE = 4
CALM_SHARE = 0.5
"""A box whose estimate is below this share of the budget is not estimated again for so many seconds, unless so many
more streams are silent: an estimate takes 6 µs, a tenth of all that a request costs."""


QUEUE_S = 0.3
LEAST_SILENT = 8
SILENT_AT_FIRST = 32
"""So many streams may be silent at a box as show their first content within so many seconds, by what each was seen to
add: vLLM's queue is kept short, as nobody can be let past in it. At least and at first so many."""


class Sent(Protocol):
    """What is remembered of an attempt from when it was sent."""

    adapter: str | None
    streamed: bool
    began: float
    silent_before: int
    in_flight: int


class BoxLoad:
    """Of one box. Times are monotonic seconds; ``max_loras``: its LoRA slots.

    Only a customer's stream has a time to first token: of a plain answer nobody sees when it began, and a probe's
    prompt is too short to learn from.
    """

    def __init__(self, max_loras: int) -> None:
        self.attempts = InFlight()
        self.history = EngineHistory()
        self.ttfts = TtftHistory()
        self.limit = ConcurrencyLimit()
        self.slots = SlotModel(max_loras)
        self.silent_limit = SILENT_AT_FIRST
        self.turns = Turns()
        self._silent_since_reading = 0
        self._saturations: dict[tuple[str | None, float], Saturation] = {}
        self._calm: dict[tuple[str | None, float], tuple[float, int]] = {}

    # What happens.

    def began(self, adapter: str | None, *, streamed: bool) -> tuple[int, int]:
        """An attempt is sent: how many streams were silent before it, and how many attempts are in flight with it."""
        silent_before = self.attempts.silent
        self.attempts.began(adapter, silent=streamed)
        if streamed:
            self._silent_since_reading += 1
        if adapter is not None:
            self.slots.use(adapter, self.attempts.of)
        return silent_before, self.attempts.total

    def first_content(self, sent: Sent, now: float) -> None:
        """An attempt shows its first content."""
        if sent.streamed:
            ttft_s = now - sent.began
            self.ttfts.observe(ttft_s, silent=sent.silent_before, now=now)
            self.limit.observe(ttft_s, sent.in_flight, now)

    def gave_up(self, sent: Sent, now: float) -> None:
        """An attempt was given up on while it was silent. Else the slowest of all would be missing."""
        if sent.streamed:
            waited_s = now - sent.began
            self.ttfts.gave_up(waited_s, now=now)
            self.limit.observe(waited_s, sent.in_flight, now)

    def probed(self, ttft_s: float) -> None:
        """A probe showed its token: the box can be as fast as that, whatever it was when customers last asked it."""
        self.ttfts.at_best(ttft_s)

    def read(self, reading: EngineReading) -> None:
        """The box's metrics were read."""
        self.history.add(reading)
        self._silent_since_reading = 0
        self._look_again(reading.at_s)

    def restarted(self) -> None:
        """Behind the address stands another server, or the same one started anew."""
        self.limit.reset()
        self.slots.clear()
        self.turns = Turns()
        self.silent_limit = SILENT_AT_FIRST
        self.ttfts = TtftHistory()
        self.history = EngineHistory()
        self._saturations.clear()
        self._calm.clear()

    # What the processes that ask the same box tell each other.

    @property
    def silent_since_reading(self) -> int:
        """Streams that were sent after the latest reading, by all of them."""
        return self._silent_since_reading

    def follow_reading(self, reading: EngineReading | None, pace: EnginePace) -> None:
        """Another process has read the box's metrics, and what follows from them."""
        history = self.history
        history.latest, history.pace = reading, pace
        self._silent_since_reading = 0
        if reading is not None:
            self._look_again(reading.at_s)

    def sent_elsewhere(self, by: int) -> None:
        """So many more streams (or, where that was told before, fewer) were sent there since the latest reading."""
        self._silent_since_reading += by

    # What follows from it.

    def has_room(self, adapter: str) -> bool:
        """Whether a request for ``adapter`` would wait for nobody: fewer are in flight than the limit, few are silent,
        and there is a LoRA slot for it beside those of all adapters in flight."""
        return self.lets_in and self.has_slot(adapter)

    @property
    def lets_in(self) -> bool:
        """The part of that which holds for every adapter."""
        attempts = self.attempts
        return self.limit.admits(attempts.total) and attempts.silent < self.silent_limit

    def has_slot(self, adapter: str) -> bool:
        """The part of that which is about LoRA slots."""
        attempts = self.attempts
        kept = 0
        if (reservation := self.turns.reservation) is not None:
            if adapter == reservation.closed:
                return False
            kept = adapter != reservation.adapter and attempts.of(reservation.adapter) == 0
        return attempts.of(adapter) > 0 or attempts.distinct + kept < self.slots.slots

    def denied(self, adapter: str, now: float) -> None:
        """A request for ``adapter``, which lives here, found no room in time."""
        self.turns.denied(adapter, self.attempts.adapters, now, self.has_slot)

    def estimate(self, adapter: str | None, now: float) -> Estimate:
        """The time to first token that a request for ``adapter`` (None: the base) would see."""
        attempts = self.attempts
        own = OwnLoad(attempts.silent, self._silent_since_reading, attempts.adapters, self.slots.slots)
        return estimate(
            adapter,
            resident=adapter is None or adapter in self.slots,
            own=own,
            ttft=self.ttfts.view(now),
            reading=self.history.latest,
            pace=self.history.pace,
            now=now,
        )

    def fresh_reading(self, now: float) -> EngineReading | None:
        """What the box said of itself last, unless that was too long ago to be known any more."""
        reading = self.history.latest
        return None if reading is None or now - reading.at_s > STALE_S else reading

    def saturation(self, adapter: str | None, budget_s: float, now: float) -> Saturation:
        """Whether the box is too slow for ``budget_s``, without remembering that it was asked."""
        return self._after(self._saturations.get((adapter, budget_s), _NEVER), adapter, budget_s, now)

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        """The same, for a request that is to be decided: it is remembered."""
        key = (adapter, budget_s)
        attempts = self.attempts
        calm = self._calm.get(key)
        if calm is not None and now < calm[0] and attempts.silent <= calm[1]:
            return False
        seen_s = self.estimate(adapter, now).ttft_s
        state = self._saturations.get(key, _NEVER).after(seen_s, budget_s, now)
        self._become(adapter, budget_s, state, now)
        if state is _NEVER and (seen_s is None or seen_s < CALM_SHARE * budget_s):
            self._calm[key] = (now + CALM_S, attempts.silent + CALM_MORE)
        return state.saturated

    def _look_again(self, now: float) -> None:
        self._calm.clear()
        per_silent_s = self.ttfts.view(now).per_silent_s
        if per_silent_s is not None:
            self.silent_limit = max(LEAST_SILENT, int(QUEUE_S / max(per_silent_s, 1e-3)))
        # Who is turned away asks no more, so that without this nobody would see that it is over.
        for (adapter, budget_s), state in tuple(self._saturations.items()):
            self._become(adapter, budget_s, self._after(state, adapter, budget_s, now), now)

    def _after(self, state: Saturation, adapter: str | None, budget_s: float, now: float) -> Saturation:
        return state.after(self.estimate(adapter, now).ttft_s, budget_s, now)

    def _become(self, adapter: str | None, budget_s: float, state: Saturation, now: float) -> None:
        if not state.idle(now):
            self._saturations[adapter, budget_s] = state
        elif self._saturations:
            self._saturations.pop((adapter, budget_s), None)


_NEVER = Saturation()
