"""A worker's way to the store for its limits and usage: through its watcher, who alone speaks with Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.accounts.exchange import Ask, Told
from gateway.errors import StoreUnreachable
from gateway.workers.messages import AccountsAsk, Message
from gateway.workers.news import AccountsTold

LIMIT_S = 2.0
"""For the watcher to answer: longer than it gives the store."""


class AccountLine:
    """An :class:`~gateway.accounts.exchange.Exchange` over the line to the watcher; ``send`` says something there."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._number = 0
        self._due: dict[int, asyncio.Future[Told]] = {}
        self._lost = False

    async def exchange(self, ask: Ask) -> Told:
        """Tell and hear. Raises StoreUnreachable."""
        if self._lost:
            raise StoreUnreachable("the watcher is gone")
        self._number = number = self._number + 1
        self._due[number] = due = asyncio.get_running_loop().create_future()
        self._send(AccountsAsk(number, ask))
        try:
            async with asyncio.timeout(LIMIT_S):
                told: Told = await due
        except TimeoutError:
            raise StoreUnreachable("the watcher does not answer") from None
        finally:
            del self._due[number]
        return told

    def lose(self) -> None:
        """The watcher is gone."""
        self._lost = True
        for due in self._due.values():
            if not due.done():
                due.set_exception(StoreUnreachable("the watcher is gone"))

    def take(self, news: AccountsTold) -> None:
        """The watcher has answered."""
        due = self._due.get(news.number)
        if due is None or due.done():
            return
        if news.told is None:
            due.set_exception(StoreUnreachable("the store did not answer the watcher"))
        else:
            due.set_result(news.told)
