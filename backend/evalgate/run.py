"""Asks all that a run has not been answered yet, some at a time, and hands every answer on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from backend.evalgate.client import Barred, Unanswered
from backend.evalgate.said import Said

GIVEN_UP: Final = 3
"""So many prompts without an answer end a run: the endpoint is gone, and each costs all of its tries."""

Key = TypeVar("Key", bound=Hashable)


class Lost(Exception):
    """The run cannot go on now. What was answered is kept; asked again, it goes on."""


class Run(Generic[Key]):
    """``ask`` gives one answer or raises Unanswered or Barred; ``add`` keeps it."""

    def __init__(self, ask: Callable[[Key], Awaitable[Said]], add: Callable[[Key, Said], None]) -> None:
        self._ask = ask
        self._add = add
        self._failures: list[str] = []
        self._barred: str | None = None

    async def through(self, keys: Iterable[Key], *, concurrency: int) -> None:
        """Ask each of ``keys``, ``concurrency`` at a time. Raises Lost, once what was under way has ended."""
        waiting = iter(keys)
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(waiting))
        if self._barred is not None:
            raise Lost(self._barred)
        if self._failures:
            more = f" (and {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
            raise Lost(f"no answer: {self._failures[0]}{more}")

    async def _work(self, waiting: Iterator[Key]) -> None:
        while self._barred is None and len(self._failures) < GIVEN_UP:
            key = next(waiting, None)
            if key is None:
                return
            try:
                said = await self._ask(key)
            except Unanswered as error:
                self._failures.append(str(error))
            except Barred as error:
                self._barred = str(error)
            else:
                self._add(key, said)
