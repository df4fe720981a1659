"""A real store, and accounts of several processes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from gateway.accounts.account_store import AccountStore
from gateway.accounts.accounts import Accounts
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.embedded import EmbeddedValkey

Start = Callable[..., Accounts]


@pytest.fixture
async def store(valkey: EmbeddedValkey) -> AsyncIterator[AccountStore]:
    opened = AccountStore(valkey.url)
    yield opened
    await opened.close()


@pytest.fixture
async def start(valkey: EmbeddedValkey) -> AsyncIterator[Start]:
    """Starts the accounts of one process more."""
    stores: list[AccountStore] = []
    started: list[Accounts] = []

    def begin(policy: CompiledPolicy, *, today: Callable[[], str] = lambda: "2026-11-25") -> Accounts:
        opened = AccountStore(valkey.url)
        accounts = Accounts(GatewayMetrics(Registry()), shared=True, today=today)
        accounts.follow(policy)
        accounts.start(opened)
        stores.append(opened)
        started.append(accounts)
        return accounts

    yield begin
    for accounts in started:
        await accounts.close()
    for opened in stores:
        await opened.close()
