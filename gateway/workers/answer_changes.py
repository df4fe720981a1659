"""Which changes of who answers a customer are news: each worker tells its own, and the gateway changes once."""

from __future__ import annotations

from gateway.workers.messages import Happened

ANSWERED = frozenset({"degraded", "restored", "unavailable"})
"""Events that tell such a change."""


class AnswerChanges:
    """Remembers how each customer was answered last."""

    def __init__(self) -> None:
        self._last: dict[object, tuple[object, ...]] = {}

    def is_news(self, told: Happened) -> bool:
        """Whether an event of a worker's tells what is not known yet; it is known then."""
        if told.kind not in ANSWERED:
            return True
        customer = told.fields.get("customer")
        now: tuple[object, ...] = (told.kind,)
        if told.kind == "degraded":
            now = told.kind, told.fields.get("served_by"), told.fields.get("reason")
        if self._last.get(customer, ("restored",)) == now:
            return False
        self._last[customer] = now
        return True
