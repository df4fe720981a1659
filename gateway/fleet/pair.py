"""What is known of one adapter on one box, once something went wrong with it there."""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import Reason
from gateway.fleet.breaker import Breaker, Permit, State


class Pair:
    """A breaker of its own for one (box, adapter): what one adapter does wrong is not the others' fault.

    ``missing``: the box said that it does not have the adapter, which one answer is enough to believe.
    """

    __slots__ = ("breaker", "missing")

    def __init__(self, on_change: Callable[[State], None]) -> None:
        self.breaker = Breaker(on_change=on_change)
        self.missing = False

    def condition(self, now: float) -> Reason | None:
        """None where the box may be asked for this adapter; else why not."""
        if self.breaker.admits(now):
            return None
        return Reason.ADAPTER_UNAVAILABLE if self.missing else Reason.CIRCUIT_OPEN

    def begin(self, now: float, *, force: bool) -> Permit | None:
        """As :meth:`gateway.fleet.breaker.Breaker.begin`."""
        return self.breaker.begin(now, force=force)

    def lacks(self, permit: Permit | None, now: float) -> None:
        """The box answered that it does not have the adapter; ``permit`` is the attempt's, if the pair gave one."""
        self.missing = True
        if permit is None or self.breaker.closed:
            self.breaker.trip(now)
        else:
            permit.failed(now)

    def failed(self, permit: Permit | None, now: float) -> None:
        """An attempt for this adapter failed in some other way."""
        (permit or Permit(self.breaker, self.breaker.epoch)).failed(now)
