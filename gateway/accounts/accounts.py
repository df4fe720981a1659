"""The accounts of one process that answers clients: admits requests, counts what they took, meets the others.

Whoever asks here gets an answer at once, from what this process knows. The exchange with the store runs beside it;
while it fails, the process goes on with the share that it had.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable

from gateway.accounts.account import Kind
from gateway.accounts.exchange import Ask, Exchange, Told
from gateway.accounts.habit import Habit
from gateway.accounts.limits import EXCHANGE_S, Limits
from gateway.accounts.others import VISITOR
from gateway.accounts.prepared import Prepared
from gateway.accounts.shown import ShownUsage
from gateway.accounts.terms import PROVIDER, all_provider_terms, provider_terms, terms_of
from gateway.accounts.usage import Usage
from gateway.clock import today_utc
from gateway.errors import StoreError
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderSpec
from gateway.policy.reconnect import patiently
from gateway.policy.uncollected import uncollected
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

FIRST_EXCHANGE_S = 3.0
"""To find out who else is there and what is left of limits, before requests are answered. Of a process that was killed
it takes a second to tell (``gateway.accounts.others``)."""

FLUSH_S = 1.0
"""How often what was used is told, and what customers have spent is heard."""

ROUNDS = 4
"""Exchanges at once, where somebody waits for what is here."""


class Accounts:
    """``shared``: other processes admit requests for the same customers. Without :meth:`start` it is on its own.

    ``visits``: it admits none, and only asks providers now and then, among those that do.

    ``clock`` is monotonic, in seconds; ``today`` gives the UTC day in ISO's form.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        *,
        shared: bool = False,
        visits: bool = False,
        clock: Callable[[], float] | None = None,
        today: Callable[[], str] = lambda: today_utc().isoformat(),
    ) -> None:
        self.limits = Limits((VISITOR if visits else "") + uuid.uuid4().hex, shared=shared)
        self.usage = Usage(today())
        self.habits: dict[str, Habit] = {}
        self._shared = shared
        self._visits = visits
        self._metrics = metrics
        self._clock = clock
        self._today = today
        self._uniform = random.random
        self._prepared: Prepared | None = None
        self._spenders: list[str] = []
        self._tasks = TaskSet()
        self._hurry = asyncio.Event()
        self._exchange: Exchange | None = None
        self._flushed_at: float | None = None
        self._on_spent: Callable[[], None] = lambda: None
        self._turn = asyncio.Lock()
        self._begun = asyncio.Event()
        shown = ShownUsage(metrics)
        metrics.before_render(lambda: shown.show(self.usage.total))
        metrics.before_render(lambda: metrics.accounts_alone.set(int(self.on_its_own)))

    @uncollected()
    def prepare(self, policy: CompiledPolicy) -> None:
        """In a thread: make what :meth:`follow` will need for ``policy``, so that it takes no time there."""
        if not self._visits:
            self._prepared = Prepared(policy, self._prepared, self.limits.accounts)

    def follow(self, policy: CompiledPolicy) -> None:
        """These limits and caps hold."""
        if self._visits:
            self.limits.follow(all_provider_terms(policy))
        else:
            prepared = self._prepared
            if prepared is None or prepared.policy is not policy:
                prepared = self._prepared = Prepared(policy, prepared, self.limits.accounts)
            self.limits.follow(prepared.terms, prepared.take_accounts())
        self._spenders = [name for name, one in policy.customers.items() if one.usd_per_day is not None]
        for name in self.habits.keys() - policy.customers.keys():
            del self.habits[name]
        self._hurry.set()

    def on_spent(self, listener: Callable[[], None]) -> None:
        """``listener`` is called whenever the store has said what customers have spent."""
        self._on_spent = listener

    def start(self, exchange: Exchange) -> None:
        """Meet the others there, from now on."""
        self._exchange = exchange
        self._tasks.spawn(self._meet(), name="accounts")

    async def begun(self, limit_s: float) -> None:
        """Wait until it is known who else is there and what is left here, if not for longer than ``limit_s``."""
        try:
            async with asyncio.timeout(limit_s):
                await self._begun.wait()
        except TimeoutError:
            log.warning("nothing was heard of the other gateways' use of limits yet; it is asked for on")

    async def close(self) -> None:
        """Say what was used last, and that this process holds nothing any more, if there is anybody to say it to."""
        await self._tasks.close()
        if self._exchange is None:
            return
        try:
            await self._say(self.limits.leave(), flush=True)
        except StoreError as error:
            log.warning("what was used last could not be written: %s", error)

    async def flush(self) -> None:
        """Tell the store now what was used. Raises StoreError."""
        if self._exchange is not None:
            await self._once(flush=True)

    # For requests.

    def account(self, customer: CustomerPolicy) -> str:
        """The key of a customer's limits, which may be those of a version that is not in force here any more or yet."""
        if customer.name not in self.limits.accounts:
            self.limits.add(customer.name, terms_of(customer))
        return customer.name

    def provider_account(self, provider: ProviderSpec) -> str:
        """The same of a provider's."""
        key = PROVIDER + provider.name
        if key not in self.limits.accounts:
            self.limits.add(key, provider_terms(provider))
        return key

    def habit(self, customer: str) -> Habit:
        """What its requests take."""
        habit = self.habits.get(customer)
        if habit is None:
            habit = self.habits[customer] = Habit()
        return habit

    def hurry(self) -> None:
        """Somebody waits for the next exchange."""
        self._hurry.set()

    def refused(self, customer: str, kind: Kind, tokens: int) -> None:
        """A request was turned away."""
        self.limits.refused(customer, tokens)
        self._metrics.limit_refused.inc(customer, kind)

    # What is known, for people.

    @property
    def on_its_own(self) -> bool:
        """Whether the others are not heard of, although there should be some. Who only visits has no share to go on
        with."""
        return self._exchange is not None and not self._visits and self.limits.on_its_own(self._now())

    def left(self, key: str, kind: Kind) -> int | None:
        """What is left of a limit of all processes together, as far as is known; None where there is none."""
        account = self.limits.accounts.get(key)
        return None if account is None else account.left(kind, self._now())

    def spent(self, customer: str) -> int:
        """Nano-USD of today."""
        return self.usage.spent(customer)

    # The exchange.

    async def _meet(self) -> None:
        while True:
            patient = patiently()
            await patient(self._once)
            self._hurry.clear()
            pause_s = EXCHANGE_S if self._shared and self.limits.is_busy else FLUSH_S
            try:
                async with asyncio.timeout(pause_s * (0.8 + 0.4 * self._uniform())):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def _once(self, *, flush: bool = False) -> None:
        async with self._turn:
            if self.usage.roll(self._today()):
                self._on_spent()
            for _ in range(ROUNDS):
                now = self._now()
                due = flush or self._flushed_at is None or now - self._flushed_at >= FLUSH_S
                await self._say(self.limits.ask(now), flush=due)
                flush = False
                if not self.limits.urgent:
                    return

    async def _say(self, ask: Ask, *, flush: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        batch = self.usage.batch() if flush else None
        spenders = self._spenders if flush else []
        day = self.usage.day
        if not self._shared and batch is None and not spenders:
            self._begun.set()
            return
        ask = Ask(ask.me, ask.beat, ask.published, ask.wanted, ask.unwanted, ask.gone, batch, day, spenders, ask.leaves)
        try:
            told = await exchange.exchange(ask)
        except StoreError:
            self.limits.unheard()
            if flush:
                self.usage.unheard()
            self._metrics.accounts_unheard.inc()
            raise
        except BaseException:
            self.limits.unheard()
            self.usage.unheard()
            raise
        self._take(told, ask)

    def _take(self, told: Told, ask: Ask) -> None:
        now = self._now()
        if ask.batch is not None or ask.spenders:
            self._flushed_at = now
            spent = told.spent if ask.day == self.usage.day else {}
            self.usage.heard(0 if ask.batch is None else ask.batch.number, spent)
            self._on_spent()
        if self._shared and not ask.leaves:
            self.limits.told(told, now)
        if not self._shared or self.limits.is_settled(now):
            self._begun.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()
