"""The watcher's side of its workers' limits and usage: carries them to the store, and remembers what it heard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from gateway.accounts.account import KINDS, Kind, Shares, Terms, read_shares, shares_of
from gateway.accounts.exchange import Ask, Exchange, Told
from gateway.accounts.terms import account_terms
from gateway.clock import today_utc
from gateway.errors import StoreError
from gateway.policy.compiled import CompiledPolicy
from gateway.tasks import TaskSet
from gateway.workers.messages import AccountsAsk, Message
from gateway.workers.news import AccountsTold

log = logging.getLogger(__name__)


class AccountDesk:
    """``start`` names the store; until then, and while it is away, workers are told so."""

    def __init__(self) -> None:
        self._store: Exchange | None = None
        self._names: dict[int, str] = {}
        self._published: dict[str, Mapping[str, Shares]] = {}
        self._terms: Mapping[str, Terms] = {}
        self._spent: dict[str, int] = {}
        self._day = ""
        self._tasks = TaskSet()
        self._on_spent: Callable[[], None] = lambda: None

    def start(self, store: Exchange) -> None:
        """This is the store."""
        self._store = store

    def on_spent(self, listener: Callable[[], None]) -> None:
        """``listener`` is called whenever the store has said what customers have spent."""
        self._on_spent = listener

    def follow(self, policy: CompiledPolicy) -> None:
        """These limits hold."""
        self._terms = account_terms(policy)

    async def close(self) -> None:
        """End what runs."""
        await self._tasks.close()

    # Workers.

    def take(self, worker: int, told: AccountsAsk, answer: Callable[[Message], None]) -> None:
        """What ``worker`` wants to be told; ``answer`` says something to it."""
        self._names[worker] = told.ask.me
        self._tasks.spawn(self._carry(told, answer), name=f"accounts of worker {worker}")

    def ended(self, worker: int) -> None:
        """That worker's process is gone: nobody has to find out by its silence that what it held is free."""
        name = self._names.pop(worker, None)
        if name is not None and self._store is not None:
            self._tasks.spawn(self._say_it_left(name, self._store), name="accounts of a worker that ended")

    # What is known, for people.

    def left(self, key: str, kind: Kind) -> int | None:
        """What is left of a limit, as far as is known; None where there is none."""
        terms = self._terms.get(key)
        limit = None if terms is None else terms.of(kind)
        if limit is None:
            return None
        shares = shares_of(self._published.get(key, {}), KINDS.index(kind))
        return max(0, limit - sum(share.held - share.fresh for share in shares))

    def spent(self, customer: str) -> int:
        """Nano-USD of today."""
        return self._spent.get(customer, 0) if self._day == today_utc().isoformat() else 0

    async def _carry(self, asked: AccountsAsk, answer: Callable[[Message], None]) -> None:
        told: Told | None = None
        try:
            if self._store is not None:
                told = await self._store.exchange(asked.ask)
        except StoreError as error:
            log.debug("limits and usage wait: %s", error)
        answer(AccountsTold(asked.number, told))
        if told is not None:
            self._remember(asked.ask, told)

    def _remember(self, ask: Ask, told: Told) -> None:
        for key, published in told.published.items():
            found = {name: shares for name, data in published.items() if (shares := read_shares(data)) is not None}
            self._published[key] = {name: shares for name, shares in found.items() if name in told.beats}
        if ask.spenders:
            if ask.day != self._day:
                self._day, self._spent = ask.day, {}
            self._spent.update(told.spent)
            self._on_spent()

    async def _say_it_left(self, name: str, store: Exchange) -> None:
        try:
            await store.exchange(Ask(name, 0, {}, [], [], [], None, "", [], leaves=True))
        except StoreError as error:
            log.debug("the others find out by themselves that a worker has ended: %s", error)
