"""The adapters with which something went wrong on one box: what one adapter does wrong is not the others' fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto

from gateway.fleet.breaker import Breaker, Permit, State
from gateway.observe.alarms import Alarms

BASE = "(base)"
"""How the base model is named where an adapter's name would stand."""

ALARM = "adapter_missing"


class PairFault(Enum):
    """Why a box is not to be asked for one adapter."""

    MISSING = auto()
    """It said that it does not have it."""
    SUSPECTED = auto()
    """It may be what ends boxes (:mod:`gateway.fleet.suspects`)."""
    FAILING = auto()


class Pair:
    """One (box, adapter), with a breaker of its own. ``missing``: the box said that it does not have the adapter.
    ``suspected``: it was being asked for as a box ended, and has not answered since.
    """

    __slots__ = ("breaker", "missing", "suspected")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.missing = False
        self.suspected = False


class Pairs:
    """Those of one box, from the first failure of each until its next success. The adapter None is the base."""

    def __init__(
        self,
        box: str,
        alarms: Alarms,
        on_change: Callable[[State], None],
        new_breaker: Callable[[Callable[[State], None]], Breaker] = lambda on_change: Breaker(on_change=on_change),
    ) -> None:
        self._box = box
        self._alarms = alarms
        self._on_change = on_change
        self.known: dict[str | None, Pair] = {}
        """To be looked into by whoever has no time for a call: it is nearly always empty."""
        self.held: set[str | None] = set()
        """Those that are on the box and have not been seen to answer: to customers they are missing."""
        self._new_breaker = new_breaker

    def fault(self, adapter: str | None, now: float) -> PairFault | None:
        """None where the box may be asked for this adapter; else why not."""
        pair = self.known.get(adapter)
        if pair is None:
            return None
        if adapter in self.held:
            return PairFault.MISSING
        if pair.breaker.admits(now):
            return None
        if pair.suspected:
            return PairFault.SUSPECTED
        return PairFault.MISSING if pair.missing else PairFault.FAILING

    def begin(self, adapter: str | None, now: float, *, force: bool) -> Permit | None:
        """As :meth:`gateway.fleet.breaker.Breaker.begin`, for an adapter that is in here.

        A suspected one is not forced on anybody: that would make one customer's last resort everybody's outage.
        """
        if adapter in self.held and not force:
            return None
        pair = self.known[adapter]
        return pair.breaker.begin(now, force=force and not pair.suspected)

    def hold(self, adapter: str, now: float) -> None:
        """Nobody is to be sent to it before :meth:`let`: it is being loaded, and has to answer first."""
        pair = self._pair(adapter)
        pair.missing = True
        pair.breaker.trip(now)
        self.held.add(adapter)

    def let(self, adapter: str, *, answers: bool) -> None:
        """It was held: it ``answers``, or the box has it no more, which is found out as of any other."""
        self.held.discard(adapter)
        pair = self.known.get(adapter)
        if not answers or pair is None:
            return
        if pair.suspected:
            # One token is no proof that it ends no boxes.
            pair.missing = False
            self._alarms.off(ALARM, self._subject(adapter))
        else:
            self.forget(adapter)

    def lacks(self, adapter: str | None, permit: Permit | None, why: str, now: float) -> None:
        """The box answered that it does not have the adapter, which one answer is enough to believe.

        ``permit`` is the attempt's, if the pair gave one.
        """
        pair = self._pair(adapter)
        # Also where it was held before anybody had missed it.
        if not self._alarms.is_on(ALARM, self._subject(adapter)):
            self._alarms.on(ALARM, self._subject(adapter), f"box {self._box} has no {adapter or BASE}: {why}")
        pair.missing = True
        if permit is None or pair.breaker.closed:
            pair.breaker.trip(now)
        else:
            permit.failed(now)

    def failed(self, adapter: str | None, permit: Permit | None, now: float) -> None:
        """An attempt for this adapter failed in some other way."""
        breaker = self._pair(adapter).breaker
        (permit or Permit(breaker, breaker.epoch)).failed(now)

    def suspect(self, adapter: str, now: float, for_s: float) -> None:
        """Whether this adapter answers matters now; for so long it is not to be asked for."""
        pair = self._pair(adapter)
        pair.suspected = True
        if for_s:
            pair.breaker.hold(now, for_s)

    def trust(self, adapter: str) -> None:
        """It is suspected no more."""
        if (pair := self.known.get(adapter)) is not None and pair.suspected:
            if pair.missing:
                pair.suspected = False
            else:
                self.forget(adapter)

    def answered(self, adapter: str | None, permit: Permit | None, now: float) -> None:
        """The adapter answers."""
        if permit is not None:
            permit.succeeded(now)
        pair = self.known.get(adapter)
        if pair is not None and pair.breaker.closed:
            self.forget(adapter)

    def missing(self) -> dict[str, float]:
        """The adapters that the box said it does not have, each with the time from which it is asked again."""
        return {adapter or BASE: pair.breaker.retry_at for adapter, pair in self.known.items() if pair.missing}

    def failing(self) -> dict[str, float]:
        """The adapters that fail on this box in some other way, likewise."""
        return {
            adapter or BASE: pair.breaker.retry_at
            for adapter, pair in self.known.items()
            if not pair.missing and not pair.suspected and not pair.breaker.closed
        }

    def suspected(self) -> dict[str, float]:
        """The adapters that are kept off, as they may be what ends boxes, likewise."""
        return {
            adapter or BASE: pair.breaker.retry_at
            for adapter, pair in self.known.items()
            if pair.suspected and not pair.breaker.closed
        }

    def overdue(self, now: float) -> bool:
        """Whether it is time to look if an adapter that was missing is there again."""
        return any(
            pair.missing and pair.breaker.retry_at <= now and adapter not in self.held
            for adapter, pair in self.known.items()
        )

    def listed(self, names: frozenset[str]) -> None:
        """The box says that it has these."""
        for adapter in [adapter for adapter, pair in self.known.items() if pair.missing and adapter in names]:
            if adapter not in self.held:
                self.forget(adapter)

    def blame_the_box(self) -> None:
        """The box is found to be at fault: what fails on it is not the adapters', but for those that it does not have
        and those that may be what ended it.
        """
        for adapter in [adapter for adapter, pair in self.known.items() if not (pair.missing or pair.suspected)]:
            del self.known[adapter]

    def keep(self, known: frozenset[str]) -> None:
        """Drop what is remembered of adapters that no policy names any more."""
        for adapter in [adapter for adapter in self.known if adapter is not None and adapter not in known]:
            self.forget(adapter)

    def forget_all(self) -> None:
        """The box left the policy."""
        for adapter in list(self.known):
            self.forget(adapter)

    def forget(self, adapter: str | None) -> None:
        """Nothing is wrong with this adapter, or nobody cares."""
        self.held.discard(adapter)
        if self.known.pop(adapter).missing:
            self._alarms.off(ALARM, self._subject(adapter))

    def items(self) -> Iterable[tuple[str | None, Pair]]:
        """Each adapter in here, and what is known of it."""
        return self.known.items()

    def get(self, adapter: str | None) -> Pair | None:
        """What is known of ``adapter``, if it is in here."""
        return self.known.get(adapter)

    def follow(self, found: Mapping[str | None, tuple[bool, bool]], held: Iterable[str | None] = ()) -> None:
        """Exactly these are in here, each with whether it is missing, and suspected, as another process found out."""
        for adapter in [adapter for adapter in self.known if adapter not in found]:
            self.forget(adapter)
        for adapter, (is_missing, is_suspected) in found.items():
            pair = self._pair(adapter)
            pair.missing, pair.suspected = is_missing, is_suspected
        self.held = set(held)

    def _subject(self, adapter: str | None) -> str:
        return f"{self._box}/{adapter or BASE}"

    def _pair(self, adapter: str | None) -> Pair:
        pair = self.known.get(adapter)
        if pair is None:
            pair = self.known[adapter] = Pair(self._new_breaker(self._on_change))
        return pair
