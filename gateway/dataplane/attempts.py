"""Makes one attempt after the other, or beside it, until one is answered. Thin I/O: what is next is the journey's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.dataplane.accounting import FULL, Accounting
from gateway.dataplane.admission import Admission, denied
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.call import Call
from gateway.dataplane.candidate import Attempt, Wait
from gateway.dataplane.journey import Journey
from gateway.dataplane.racing import ClientsMistake, Race
from gateway.dataplane.record import Record
from gateway.dataplane.request import Request
from gateway.dataplane.retry_budget import RACES_PER_SECOND, REQUESTS_PER_RACE, RetryBudget
from gateway.dataplane.verdict import is_clients_mistake
from gateway.errors import NotAdmitted, Reason, UpstreamError, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.policy.compiled import CustomerPolicy, ProviderStep, StaticStep


class Attempts:
    """Of all requests of one process. ``retry_share``: what part of the gateway's retry budget is this process's."""

    def __init__(self, asker: Asker, record: Record, books: Accounting, *, retry_share: float) -> None:
        self._asker = asker
        self._record = record
        self._books = books
        self._budget = RetryBudget(0.0, share=retry_share)
        self._races = RetryBudget(0.0, share=retry_share, per_second=RACES_PER_SECOND, requests_each=REQUESTS_PER_RACE)
        self.admission = Admission()

    def requested(self, request: Request, now: float) -> None:
        """One more request is to be answered, which the budgets grow by."""
        self._budget.request()
        self._races.request()
        if request.is_retry:
            self._budget.spent_elsewhere(now)

    def take_retry(self, now: float) -> bool:
        """Take another attempt at the own adapter out of the retry budget, if one is left."""
        allowed = self._budget.take(now)
        if not allowed:
            self._record.retry_denied()
        return allowed

    def retries_left(self, now: float) -> int:
        """How many that would be."""
        return self._budget.left(now)

    async def first(
        self,
        call: Call,
        customer: CustomerPolicy,
        request: Request,
        journey: Journey,
        boxes: Sequence[Box],
        *,
        own: bool = True,
    ) -> Answer | Attempt | None:
        """The first answer of ``journey``; or the attempt whose fixed text is due; or None, as all is tried.

        ``own``: whether the own adapter may be asked. Raises ClientsMistake.
        """
        while (attempt := journey.next(call.clock())) is not None:
            if isinstance(attempt, Wait) or attempt.kind == "own":
                if request.fallback_only:
                    return None  # who asks what the fallback says is not to be told what the adapter says
                if not own:
                    if isinstance(attempt, Wait):
                        journey.waited(None)
                    continue
            if isinstance(attempt, Wait):
                await self._wait(call, customer, request, attempt, journey)
                continue
            if attempt.number == 1 and attempt.reason is Reason.BACKEND_SATURATED:
                denied(boxes, request.adapter, call.clock())
            call.attempts = attempt.number
            if attempt.extra:
                self._record.asked_beyond_limits()
            if isinstance(attempt.step, StaticStep):
                return attempt
            answer = await self._attempt(call, customer, request, attempt, journey)
            if answer is not None:
                return answer
        return None

    async def _attempt(
        self, call: Call, customer: CustomerPolicy, request: Request, attempt: Attempt, journey: Journey
    ) -> Answer | None:
        """The answer to one attempt, or to one that was made beside it; None where there was none. Raises
        ClientsMistake."""

        if attempt.kind != "own" or not request.stream or attempt.forced:
            try:
                return await self._ask(call, customer, request, attempt, journey)
            except UpstreamError:
                return None

        def ask(beside: Attempt) -> Coroutine[Any, Any, Answer]:
            return self._ask(call, customer, request, beside, journey)

        race = Race(call.task, attempt, journey, ask, now=call.clock, may_begin=self._races.take)
        try:
            answer = await self._ask(call, customer, request, attempt, journey, race.overdue)
            race.won_by_first()
            return answer
        except UpstreamError:
            return await race.second() if race.began else None
        except asyncio.CancelledError:
            if not race.decided or call.ended_by is not None:
                raise
            call.task.uncancel()
            self._failed(customer, attempt, UpstreamTimeout("silent for its budget"), journey)
            return await race.second()
        finally:
            if race.began:
                self._record.raced(race.winner)
                await race.close()

    async def _ask(
        self,
        call: Call,
        customer: CustomerPolicy,
        request: Request,
        attempt: Attempt,
        journey: Journey,
        on_overdue: Callable[[], float] | None = None,
    ) -> Answer:
        """Ask one target. Of an UpstreamError that this raises, the journey was told. Raises ClientsMistake, too."""
        if request.told is not None and attempt.kind != "own":
            # Its headers are gone, which said another reason or none: that one is only ever told in an event.
            attempt.reason = Reason.STREAM_BROKEN
        hired = None
        if isinstance(attempt.step, ProviderStep):
            hired = await self._books.at_provider(call, customer, request, attempt.step)
            if hired is None:
                error = NotAdmitted(FULL)
                journey.failed(attempt, error)
                raise error
        try:
            answer = await self._asker.ask(request, attempt, call.clock, on_overdue)
        except BaseException as error:
            if hired is not None:
                hired.release(call.clock())
            if isinstance(error, UpstreamError):
                self._failed(customer, attempt, error, journey)
            raise
        answer.hired = hired
        return answer

    def _failed(self, customer: CustomerPolicy, attempt: Attempt, error: UpstreamError, journey: Journey) -> None:
        """Raises ClientsMistake where that is what the error says."""
        journey.failed(attempt, error)
        final = attempt.box is not None and is_clients_mistake(error)
        self._record.attempt_failed(customer, attempt, error, final=final)
        if final:
            raise ClientsMistake(error) from error

    async def _wait(self, call: Call, customer: CustomerPolicy, request: Request, wait: Wait, journey: Journey) -> None:
        began = call.clock()
        grant = await self.admission.room(call.loop, wait, customer, request)
        self._record.waited(call.clock() - began, served=grant is not None)
        journey.waited(*grant) if grant is not None else journey.waited(None)
