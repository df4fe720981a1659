"""Boxes to test with: the fleet's real ones, in front of small servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from tests.fleet.token_box import TOKEN, TokenBox, Watchers

StartBox = Callable[..., Awaitable[TokenBox]]


@pytest.fixture
def watchers() -> Watchers:
    registry = Registry()
    metrics, events = GatewayMetrics(registry), Events(100)
    return Watchers(registry, metrics, Alarms(metrics, events), events)


@pytest.fixture
async def start_box() -> AsyncIterator[StartBox]:
    started: list[TokenBox] = []

    async def start(answer: bytes = TOKEN) -> TokenBox:
        box = TokenBox(answer)
        started.append(box)
        await box.start()
        return box

    yield start
    for box in started:
        await box.stop()
