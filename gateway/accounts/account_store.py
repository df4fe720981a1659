"""Redis's side: where the processes meet, and what was used, by day.

========================================== ============================================================================
``{failsoft}:limits:beats``                hash: process → how often it has said that it lives
``{failsoft}:limits:wanted``               set: accounts of which somebody wants more
``{failsoft}:limits:of:ACCOUNT``           hash: process → what it has published of the account's limits
``{failsoft}:usage:DAY``                   hash: ``customer|kind|reason|count`` → sum; kept for :data:`KEEP_USAGE_S`
``{failsoft}:usage:DAY:spent``             hash: customer → nano-USD at hosted providers
``{failsoft}:usage:batch:PROCESS``         the number of its last batch, so that none is counted twice
========================================== ============================================================================
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.accounts.exchange import Ask, Batch, Row, Told
from gateway.accounts.usage import COUNTS
from gateway.errors import StoreCorrupt
from gateway.policy.redis_link import PREFIX, RedisLink

KEEP_S = 3600
KEEP_USAGE_S = 400 * 86_400
KEEP_BATCH_S = 86_400
WANTED_S = 10

BEATS = f"{PREFIX}limits:beats"
WANTED = f"{PREFIX}limits:wanted"

LIMIT_S = 1.0
"""For one exchange."""


class AccountStore:
    """An :class:`~gateway.accounts.exchange.Exchange` over Redis. Raises ValueError where ``url`` is none."""

    def __init__(self, url: str) -> None:
        self._link = RedisLink(url)

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def exchange(self, ask: Ask) -> Told:
        """Tell and hear, in one transaction. Raises StoreUnreachable, StoreCorrupt."""
        async with self._link.mapped(LIMIT_S):
            batch = ask.batch
            if batch is not None and batch.again and await self._has(ask.me, batch.number):
                batch = None
            async with self._link.redis.pipeline(transaction=True) as pipe:
                # Before our own word: a store that has lost it was emptied.
                pipe.hgetall(BEATS)
                _say(pipe, ask)
                if batch is not None:
                    _count(pipe, ask.me, batch)
                last = len(pipe.command_stack)
                for account in ask.published:
                    pipe.hgetall(f"{PREFIX}limits:of:{account}")
                pipe.smembers(WANTED)
                if ask.spenders:
                    pipe.hmget(f"{PREFIX}usage:{ask.day}:spent", ask.spenders)
                answers = await pipe.execute()
        try:
            return _told(ask, answers, last)
        except (ValueError, AttributeError) as error:
            raise StoreCorrupt(f"the store holds something else under {PREFIX}limits or {PREFIX}usage") from error

    async def usage(self, since: dt.date, until: dt.date) -> list[tuple[str, Row]]:
        """What was used on each day from ``since`` to ``until``, both counted, as day and row. Raises StoreError."""
        days = [(since + dt.timedelta(days=n)).isoformat() for n in range((until - since).days + 1)]
        async with self._link.mapped(), self._link.redis.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.hgetall(f"{PREFIX}usage:{day}")
            found = await pipe.execute()
        return [(day, row) for day, fields in zip(days, found, strict=True) for row in _rows(fields)]

    async def _has(self, me: str, number: int) -> bool:
        found = await self._link.redis.get(f"{PREFIX}usage:batch:{me}")
        return found is not None and int(found) >= number


def _told(ask: Ask, answers: list[Any], last: int) -> Told:
    """``answers``: of all commands, those that were asked from ``last`` on behind the beats, which came first."""
    beats = {name.decode(): int(beat) for name, beat in answers[0].items()}
    of_accounts = answers[last : last + len(ask.published)]
    spent = answers[last + len(ask.published) + 1] if ask.spenders else []
    return Told(
        {
            account: {name.decode(): data for name, data in found.items()}
            for account, found in zip(ask.published, of_accounts, strict=True)
        },
        beats,
        sorted(key.decode() for key in answers[last + len(ask.published)]),
        {name: int(value) for name, value in zip(ask.spenders, spent, strict=True) if value is not None},
    )


def _say(pipe: Any, ask: Ask) -> None:
    if ask.beat:
        pipe.hset(BEATS, ask.me, ask.beat)
    if away := [*ask.gone, *([ask.me] if ask.leaves else [])]:
        pipe.hdel(BEATS, *away)
    for account, data in ask.published.items():
        key = f"{PREFIX}limits:of:{account}"
        pipe.hset(key, ask.me, data)
        pipe.expire(key, KEEP_S)
        if ask.gone:
            pipe.hdel(key, *ask.gone)
    if ask.unwanted:
        pipe.srem(WANTED, *ask.unwanted)
    if ask.wanted:
        pipe.sadd(WANTED, *ask.wanted)
        pipe.expire(WANTED, WANTED_S)


def _count(pipe: Any, me: str, batch: Batch) -> None:
    key = f"{PREFIX}usage:{batch.day}"
    spent: dict[str, int] = {}
    for row in batch.rows:
        for name, count in zip(COUNTS, row.counts, strict=True):
            if count:
                pipe.hincrby(key, f"{row.customer}|{row.kind}|{row.reason}|{name}", count)
        if nano_usd := row.counts[4]:
            spent[row.customer] = spent.get(row.customer, 0) + nano_usd
    pipe.expire(key, KEEP_USAGE_S)
    for customer, nano_usd in spent.items():
        pipe.hincrby(f"{key}:spent", customer, nano_usd)
    if spent:
        pipe.expire(f"{key}:spent", KEEP_USAGE_S)
    pipe.set(f"{PREFIX}usage:batch:{me}", batch.number, ex=KEEP_BATCH_S)


def _rows(fields: dict[bytes, bytes]) -> Iterator[Row]:
    cells: dict[Sequence[str], dict[str, int]] = {}
    for field, value in fields.items():
        *where, name = field.decode("utf-8", "replace").split("|")
        if len(where) == 3 and name in COUNTS:
            cells.setdefault(tuple(where), {})[name] = int(value)
    for (customer, kind, reason), counts in sorted(cells.items()):
        yield Row(customer, kind, reason, tuple(counts.get(name, 0) for name in COUNTS))
