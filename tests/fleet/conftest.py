"""Boxes to test with: the fleet's real ones, in front of small servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.fleet.token_box import TOKEN, TokenBox, Watchers, new_watchers

StartBox = Callable[..., Awaitable[TokenBox]]


@pytest.fixture
def watchers() -> Watchers:
    return new_watchers()


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
