"""A request at a hosted provider, as the accounts see it."""

from __future__ import annotations

from gateway.accounts.account import Ticket
from gateway.accounts.accounts import Accounts


class Hired:
    """A request at a provider, counted there, and what it is reckoned to cost."""

    __slots__ = ("_accounts", "_customer", "_reckoned", "_ticket")

    def __init__(self, accounts: Accounts, customer: str, ticket: Ticket, reckoned: int) -> None:
        self._accounts = accounts
        self._customer = customer
        self._ticket: Ticket | None = ticket
        self._reckoned = reckoned
        accounts.usage.reckon(customer, reckoned)

    def release(self, now: float) -> None:
        """It is there no more. What it really cost is counted elsewhere."""
        if self._ticket is not None:
            self._ticket.end(0, now)
            self._ticket = None
            self._accounts.usage.reckon(self._customer, -self._reckoned)
