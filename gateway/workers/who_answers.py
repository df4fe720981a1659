"""Who answers each customer, as the workers' events tell: each worker tells its own, the gateway changes once."""

from __future__ import annotations

from gateway.workers.messages import Happened

ANSWERED = frozenset({"degraded", "restored", "unavailable"})
"""Events that tell a change of who answers a customer."""


class WhoAnswers:
    """Remembers it, so that what several workers find out is told once."""

    def __init__(self) -> None:
        self._answers: dict[object, tuple[object, ...]] = {}

    def is_news(self, told: Happened) -> bool:
        """Whether no worker has told the same already."""
        if told.kind not in ANSWERED:
            return True
        customer = told.fields.get("customer")
        now: tuple[object, ...] = (told.kind,)
        if told.kind == "degraded":
            now = told.kind, told.fields.get("served_by"), told.fields.get("reason")
        if self._answers.get(customer, ("restored",)) == now:
            return False
        self._answers[customer] = now
        return True
