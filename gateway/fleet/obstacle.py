"""Why a box is not to be asked: every obstacle there is, with its reason for clients and its words for operators.

:meth:`gateway.fleet.box.Box.obstacle` says which one there is. That a box is too busy is none: it may be asked where
nothing else is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from gateway.errors import Reason
from gateway.fleet.pairs import BASE, PairFault

if TYPE_CHECKING:
    from gateway.fleet.box import Box


class Obstacle(Enum):
    """One that is added here has to be worded below, or the types do not hold."""

    reason: Reason

    NOT_CONFIGURED = "not configured", Reason.BACKEND_DOWN
    DRAINED = "drained", Reason.FORCED
    LACKS_ADAPTER = "lacks the adapter", Reason.ADAPTER_UNAVAILABLE
    ADAPTER_FAILS = "the adapter fails", Reason.CIRCUIT_OPEN
    ADAPTER_SUSPECTED = "the adapter may end boxes", Reason.CIRCUIT_OPEN
    AWAY = "away", Reason.CIRCUIT_OPEN
    CIRCUIT_OPEN = "circuit open", Reason.CIRCUIT_OPEN

    def __init__(self, name: str, reason: Reason) -> None:
        self.reason = reason


OF_PAIR = {
    PairFault.MISSING: Obstacle.LACKS_ADAPTER,
    PairFault.FAILING: Obstacle.ADAPTER_FAILS,
    PairFault.SUSPECTED: Obstacle.ADAPTER_SUSPECTED,
}


def in_words(obstacle: Obstacle, box: Box, adapter: str | None, now: float) -> str:
    """What an operator is told of an ``obstacle`` that ``box`` has for ``adapter`` (None: the base) at ``now``."""
    match obstacle:
        case Obstacle.NOT_CONFIGURED:
            return f"it is not configured: {box.spec.unavailable}"
        case Obstacle.DRAINED:
            return "an operator has drained it on this gateway"
        case Obstacle.LACKS_ADAPTER:
            when = _when(box.pairs.missing()[adapter or BASE], now)
            return f"it said that it does not have the adapter; it is asked again {when}"
        case Obstacle.ADAPTER_FAILS:
            return f"the adapter fails there; it is asked again {_when(box.pairs.failing()[adapter or BASE], now)}"
        case Obstacle.ADAPTER_SUSPECTED:
            when = _when(box.pairs.suspected()[adapter or BASE], now)
            return f"boxes ended while it was being asked for; it is tried again {when}"
        case Obstacle.AWAY:
            return f"it was away ({box.last_error or 'silent'}), and has shown no token since"
        case Obstacle.CIRCUIT_OPEN:
            when = _when(box.breaker.retry_at, now)
            return f"its circuit is open ({box.last_error or 'it failed'}); it is tried again {when}"


def kept_off_s(boxes: Iterable[Box], adapter: str, now: float) -> float | None:
    """For how long ``adapter`` is kept off those of ``boxes`` that may be asked for others, as boxes ended while it was
    being asked for: until the first may be asked, 0 where one request at a time may. None: it is kept off none of them.
    """
    until = [
        box.pairs.suspected().get(adapter, now)
        for box in boxes
        if box.obstacle(adapter, now) is Obstacle.ADAPTER_SUSPECTED
    ]
    return max(0.0, min(until) - now) if until else None


def _when(at: float, now: float) -> str:
    return f"in {at - now:.1f} s" if round(at - now, 3) > 0 else "by one request at a time"
