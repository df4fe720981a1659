"""What the data plane asks of the accounts, and tells them: one request's limits, its tokens, its money."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.accounts.account import KINDS, Kind, Ticket
from gateway.accounts.accounts import Accounts
from gateway.accounts.limits import WAIT_S
from gateway.accounts.usage import NANO, SYNTHETIC_DRILL
from gateway.clock import Clock
from gateway.dataplane.attempt import Answer
from gateway.dataplane.call import Call
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.hired import Hired
from gateway.dataplane.limits import Limited, rate_headers
from gateway.dataplane.request import Request
from gateway.observe.metrics import NOT_DEGRADED, GatewayMetrics
from gateway.policy.compiled import CustomerPolicy, ProviderStep

CAP_SPENT = "daily cap spent"
PRICE_UNKNOWN = "its price is not known, and there is a daily cap"
FULL = "as many requests are at it as may be"

_WITHHELD = ((CAP_SPENT, "cap_spent"), (PRICE_UNKNOWN, "price_unknown"), (FULL, "max_concurrency"))


class Timing(Protocol):
    """The time by which somebody waits: the loop's."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one that it waits in."""

    @property
    def clock(self) -> Clock:
        """Monotonic, in seconds."""


class Accounting:
    """The data plane's side of ``accounts``."""

    def __init__(self, accounts: Accounts, metrics: GatewayMetrics) -> None:
        self._accounts = accounts
        self._metrics = metrics

    # Limits.

    async def enter(self, call: Call, customer: CustomerPolicy, request: Request) -> Ticket:
        """Let a request of a customer with limits in; the ticket's ``end`` is due.

        Raises :class:`Limited`. A request that is over what this process holds waits, if not for long, where others
        may have what it lacks.
        """
        accounts = self._accounts
        limits, key = accounts.limits, accounts.account(customer)
        tokens = 0
        if customer.tokens_per_minute is not None:
            habit = accounts.habit(customer.name)
            tokens = habit.estimate(len(request.body), request.choices, request.max_tokens)
        found = limits.enter(key, tokens, call.clock())
        if not isinstance(found, Ticket) and limits.may_wait(key, tokens, call.clock()):
            await self._wait(call, key, tokens)
            key = accounts.account(customer)  # which another policy version may have taken out meanwhile
            found = limits.enter(key, tokens, call.clock())
        account = limits.accounts[key]
        if isinstance(found, Ticket):
            call.rate_headers = rate_headers(account, call.clock())
            return found
        kind: Kind = found or "requests"
        wait_s = account.retry_after_s(kind, tokens, call.clock())
        call.rate_headers = rate_headers(account, call.clock(), kind, wait_s)
        accounts.refused(customer.name, kind, tokens)
        limit = account.allowances[KINDS.index(kind)]
        raise Limited(kind, 0 if limit is None else limit.limit, wait_s)

    async def _wait(self, call: Timing, key: str, tokens: int) -> None:
        woken: asyncio.Future[None] = call.loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        leave = self._accounts.limits.wait(key, tokens, wake)
        timer = call.loop.call_later(WAIT_S, wake)
        self._accounts.hurry()
        try:
            await woken
        finally:
            timer.cancel()
            leave()

    # Fallback steps.

    def why_not(self, customer: CustomerPolicy, step: ProviderStep, now: float) -> str | None:
        """Why money or the provider's own limit keeps ``step`` from being taken, in words that a client may read."""
        cap = customer.usd_per_day
        if cap is not None:
            if step.price is None:
                return PRICE_UNKNOWN
            if self._accounts.usage.committed(customer.name) >= cap * NANO:
                return CAP_SPENT
        accounts = self._accounts
        key = accounts.provider_account(step.provider)
        full = accounts.limits.lacking(accounts.limits.accounts[key], 0, now, waits=False)
        return None if full is None or accounts.limits.may_wait(key, 0, now) else FULL

    def withheld(self, customer: CustomerPolicy, tried: list[str]) -> None:
        """These steps were tried or passed over; count those that were so for one of our reasons."""
        for line in tried:
            for words, label in _WITHHELD:
                if line.endswith(words):
                    self._metrics.steps_withheld.inc(customer.name, label)

    async def at_provider(
        self, call: Timing, customer: CustomerPolicy, request: Request, step: ProviderStep
    ) -> Hired | None:
        """One more request is at the provider; ``release`` is due. None where it is one too many.

        A place that another process has free is waited for, as a request waits for its customer's limits.
        """
        accounts, now = self._accounts, call.clock()
        key = accounts.provider_account(step.provider)
        found = accounts.limits.enter(key, 0, now, waits=False)
        if not isinstance(found, Ticket) and accounts.limits.may_wait(key, 0, now):
            await self._wait(call, key, 0)
            found = accounts.limits.enter(key, 0, call.clock(), waits=False)
        if not isinstance(found, Ticket):
            accounts.limits.refused(key, 0)
            return None
        reckoned = 0
        if customer.usd_per_day is not None and step.price is not None:
            habit = accounts.habit(customer.name)
            prompt = habit.prompt(len(request.body))
            answer = habit.estimate(len(request.body), request.choices, request.max_tokens) - prompt
            reckoned = step.price.nano_usd(prompt, answer)
        return Hired(accounts, customer.name, found, reckoned)

    # What was used.

    def answered(self, customer: CustomerPolicy, request: Request, answer: Answer) -> int:
        """An answer has ended, whole or not: count it. The tokens that it took."""
        reason = answer.attempt.reason
        return self._count(customer, request, answer, NOT_DEGRADED if reason is None else reason.value, learns=True)

    def drilled(self, customer: CustomerPolicy, request: Request, answer: Answer) -> None:
        """The same of a drill in this customer's name. What its requests take is not learned from it."""
        self._count(customer, request, answer, SYNTHETIC_DRILL, learns=False)

    def _count(self, customer: CustomerPolicy, request: Request, answer: Answer, reason: str, *, learns: bool) -> int:
        attempt, guard = answer.attempt, answer.guard
        usage = answer.usage if guard is None else guard.usage
        step = attempt.step
        name = customer.name
        kind = attempt.kind if not isinstance(step, ProviderStep) else f"provider:{step.provider.name}"
        cell = self._accounts.usage.cell(name, kind, reason)
        cell[0] += 1
        if isinstance(usage, dict):
            prompt, completion = read_usage(usage)
            if (
                learns
                and request.endpoint != "embeddings"
                and (customer.tokens_per_minute is not None or customer.usd_per_day is not None)
            ):
                self._accounts.habit(name).learn(len(request.body), request.choices, prompt, completion)
        else:
            # Each event says about a token, the first one often only the role.
            prompt = self._accounts.habit(name).prompt(len(request.body))
            completion = 0 if guard is None else max(0, guard.events - 1)
            cell[5] += 1
        cell[1] += prompt
        cell[2] += completion
        if isinstance(step, ProviderStep):
            cached = cached_tokens(usage) if isinstance(usage, dict) else 0
            cell[3] += cached
            if step.price is None:
                cell[6] += 1
            else:
                cost = step.price.nano_usd(prompt, completion, cached)
                cell[4] += cost
                self._accounts.usage.spend(name, cost)
        return prompt + completion

    def static(self, customer: CustomerPolicy, attempt: Attempt) -> None:
        """The fixed text was given, which takes nothing."""
        reason = NOT_DEGRADED if attempt.reason is None else attempt.reason.value
        self._accounts.usage.cell(customer.name, "static", reason)[0] += 1


def read_usage(usage: dict[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens of a ``usage`` object, OpenAI's of a chat or a response or Anthropic's, whatever
    stands in it. Of Anthropic's the input is only what no cache had anything to do with."""
    prompt = _tokens(usage, "prompt_tokens") or sum(_tokens(usage, name) for name in _INPUT)
    return prompt, _tokens(usage, "completion_tokens") or _tokens(usage, "output_tokens")


def cached_tokens(usage: dict[str, Any]) -> int:
    """Of the prompt's tokens, those that the provider had in its cache."""
    details = usage.get("prompt_tokens_details")
    return _tokens(details, "cached_tokens") if isinstance(details, dict) else 0


def _tokens(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if isinstance(count, int) and count > 0 else 0


_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
