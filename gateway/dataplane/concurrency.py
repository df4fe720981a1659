"""How many requests of one customer are answered at once (`limits.concurrency`)."""

from __future__ import annotations

from gateway.errors import RequestError
from gateway.policy.compiled import CustomerPolicy


class TooManyAtOnce(RequestError):
    """The customer's limit is reached. It is the caller's to wait: another model would not make it fewer."""

    retry_after_s = 1

    def __init__(self, limit: int) -> None:
        super().__init__(
            429,
            f"{limit} requests of yours are being answered, which is your limit (limits.concurrency). "
            "Ask again when one of them has ended.",
            type="requests",
            code="rate_limit_exceeded",
        )


class Concurrency:
    """The requests that run, of each customer that has a limit."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}

    def enter(self, customer: CustomerPolicy, limit: int) -> None:
        """One more begins; ``leave`` is due. Raises :class:`TooManyAtOnce` where it is one too many."""
        running = self._running.get(customer.name, 0)
        if running >= limit:
            raise TooManyAtOnce(limit)
        self._running[customer.name] = running + 1

    def leave(self, customer: CustomerPolicy) -> None:
        """It is over."""
        left = self._running[customer.name] - 1
        if left:
            self._running[customer.name] = left
        else:
            del self._running[customer.name]
