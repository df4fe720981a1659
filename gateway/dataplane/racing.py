"""A second attempt beside a first one that is silent: whichever says something first is the answer.

A stream whose box has shown nothing within the policy's `ttft_budget` is not given up at once: the next target is asked
beside it, as far as the budget for races allows. One commits, the other is cancelled upstream. Jeffrey Dean and Luiz
André Barroso call this a hedged request (*The Tail at Scale*, 2013). Thin I/O: what may run beside what is the
journey's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from gateway.dataplane.attempt import Answer
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.journey import Journey
from gateway.errors import UpstreamError
from gateway.tasks import TaskSet

Ask = Callable[[Attempt], Awaitable[Answer]]
"""Asks one target. What it raises, the journey was told of."""

Winner = Literal["first", "second", "neither"]


class ClientsMistake(Exception):
    """A box found the request itself wrong: no other target would do better."""

    def __init__(self, error: UpstreamError) -> None:
        super().__init__(str(error))
        self.error = error


class Race:
    """Of one request, whose own task ``task`` asks ``first``. ``may_begin`` takes one race out of the budget."""

    __slots__ = ("_ask", "_first", "_first_is_over", "_journey", "_may_begin", "_now", "_second", "_task", "_tasks",
                 "answer", "mistake", "winner")  # fmt: skip

    def __init__(
        self,
        task: asyncio.Task[object],
        first: Attempt,
        journey: Journey,
        ask: Ask,
        *,
        now: Callable[[], float],
        may_begin: Callable[[float], bool],
    ) -> None:
        self._task = task
        self._first = first
        self._journey = journey
        self._ask = ask
        self._now = now
        self._may_begin = may_begin
        self._tasks: TaskSet | None = None
        self._second: asyncio.Task[None] | None = None
        self._first_is_over = False
        self.answer: Answer | None = None
        """The second one's, until somebody takes it."""
        self.mistake: ClientsMistake | None = None
        self.winner: Winner = "neither"

    @property
    def began(self) -> bool:
        """Whether there ever was a second attempt."""
        return self._tasks is not None

    @property
    def decided(self) -> bool:
        """Whether the first attempt was cancelled, as it is not to be waited for any more."""
        return self._first.outrun

    def overdue(self) -> float:
        """The first has been silent for its budget: until when it may go on, beside the second; 0.0 if it may not."""
        now = self._now()
        if not self._may_begin(now):
            return 0.0
        attempt = self._journey.beside(self._first, now)
        if attempt is None:
            return 0.0
        self._tasks = TaskSet()
        self._second = self._tasks.spawn(self._run(attempt), name=f"race of {self._first.served_by}")
        return self._journey.own_until

    def won_by_first(self) -> None:
        """The first has answered: nobody waits for the second."""
        self._first_is_over = True
        self.winner = "first"

    async def second(self) -> Answer | None:
        """The first attempt is over: the second one's answer, once there is one. Raises ClientsMistake."""
        self._first_is_over = True
        if self._second is not None:
            await asyncio.wait([self._second])
        if self.mistake is not None:
            raise self.mistake
        answer, self.answer = self.answer, None
        if answer is not None:
            self.winner = "second"
        return answer

    async def close(self) -> None:
        """Cancel the second attempt, if it still runs, and let go of an answer that nobody took."""
        self._first_is_over = True
        if self._tasks is not None:
            await self._tasks.close()
        if (answer := self.answer) is not None:
            self.answer = None
            answer.drop(self._now())

    async def _run(self, attempt: Attempt | None) -> None:
        while attempt is not None:
            try:
                self.answer = await self._ask(attempt)
                break
            except ClientsMistake as mistake:
                self.mistake = mistake
                break
            except UpstreamError:
                attempt = self._journey.beside(self._first, self._now())
        won = self.answer is not None or self.mistake is not None
        if not self._first_is_over and (won or self._journey.has_kept):
            # What is kept, such as a fixed text, needs no time: the first is not worth waiting for.
            self._first.outrun = True
            self._task.cancel()
