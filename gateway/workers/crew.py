"""All workers of one gateway, from their watcher's side: kept alive, told what there is to know, listened to.

The watcher binds the port and never takes a connection from it (see ``port``). It follows the policy, probes the boxes,
and has the table that counts (see ``table``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from gateway.drills.witness import Tell
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.export import Export, show_elsewhere, together
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.versions import Head, StoredVersion
from gateway.tasks import TaskSet
from gateway.upstream.providers import Providers
from gateway.workers.account_desk import AccountDesk
from gateway.workers.asking import asking
from gateway.workers.line import framed
from gateway.workers.member import Member, Terms
from gateway.workers.messages import (
    AccountsAsk,
    AlarmOff,
    AlarmOn,
    Happened,
    InForce,
    Leaving,
    Message,
    Proven,
    Ready,
    Telemetry,
)
from gateway.workers.news import AlarmsAre, Ask, Begin, Coming, Cover, Drain, EndRequests, LitellmIs, Policy
from gateway.workers.table import Table
from gateway.workers.who_answers import WhoAnswers

log = logging.getLogger(__name__)

NEWS_S = 0.01
"""How long news that changes no decision at once may wait to be told with more of it."""

PAUSE = 9.0
"""Times as long as the last news took to make and to send: with many boxes and workers it comes more seldom, so that a
tenth of a core is enough for it."""

READY_S = 10.0
"""For all workers to take connections; after that one is enough to say that the gateway listens."""

ANSWER_S = 0.5
"""For the workers to say what they have counted, when somebody looks."""

STEADY_S = 10.0
"""A worker that ended younger than this is started again with back-off, an older one at once."""

LOOK_S = 0.25
"""How often it is looked whether the LiteLLM worker runs, and who is silent."""

LATE_S = 2.0
"""How much longer than they were given workers may take to end before they are killed."""

ALARM = "worker_down"


class _Ended(Exception):
    """A worker ended young."""


class Crew:
    """``count`` workers. ``follow`` each policy, ``start``, ``ready``; in the end ``drain`` and ``close``."""

    def __init__(
        self, count: int, *, registry: Registry, metrics: GatewayMetrics, alarms: Alarms, events: Events
    ) -> None:
        self.table = Table(self._wanted)
        self.accounts = AccountDesk()
        self._registry = registry
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._members = [Member(number, on_message=self._take, on_start=self._started) for number in range(count)]
        self._tasks = TaskSet()
        self._at_once = False
        self._pause_s = NEWS_S
        self._later: asyncio.TimerHandle | None = None
        self._policy: Policy | None = None
        self.on_proof: Tell = lambda key, *, model, error: None
        self._lasting: dict[type[Message], Message] = {}
        self._providers: Providers | None = None
        self._ended = Export()
        self._asked = 0
        self._changed = asyncio.Event()
        self._ending = False
        self._away: list[int] = []
        self._who_answers = WhoAnswers()
        self.on_in_force: Callable[[], None] = lambda: None
        metrics.before_render(lambda: metrics.workers.set(sum(member.ready for member in self._members)))

    def foretell(self, version: StoredVersion) -> None:
        """This version may come into force: all compile it at the same time, and not one after the other."""
        self._tell(_told(Coming, version))

    def follow(self, version: StoredVersion, fleets: Fleets, hosted: Hosted, providers: Providers) -> None:
        """This version is in force in the watcher: its boxes and providers are those of the table."""
        self._providers = providers
        self._policy = _told(Policy, version)
        self._look_at_litellm()
        self._tell(self._policy)
        self.table.follow(fleets, hosted)

    def announce(self, news: Message) -> None:
        """Tell it to all workers, and to those that come, until there is newer of its kind."""
        self._lasting[type(news)] = news
        self._tell(news)

    def start(self, terms: Terms) -> None:
        """Start all, and keep them alive from now on."""
        for member in self._members:
            self._tasks.spawn(self._keep_alive(member, terms), name=f"worker {member.number}")
        self._tasks.spawn(self._look_around(), name="what changes without a word")

    async def ready(self) -> None:
        """Wait until every worker takes connections, or for long enough and until one does."""
        try:
            async with asyncio.timeout(READY_S):
                await self._until(lambda: all(member.ready for member in self._members))
        except TimeoutError:
            await self._until(lambda: any(member.ready for member in self._members))

    def decides_by(self, head: Head) -> bool:
        """Whether every worker that takes connections does: by this content, and not by another of the same number."""
        return all(member.in_force == (head.version, head.digest) for member in self._members if member.ready)

    @property
    def in_flight(self) -> int:
        """Requests that are being answered, as far as the watcher has heard."""
        return sum(member.in_flight for member in self._members)

    def members(self) -> list[dict[str, Any]]:
        """For people: each worker."""
        return [member.facts() for member in self._members]

    def asking(self, app: Any) -> Callable[[dict[str, Any], Any, Any], Awaitable[None]]:
        """``app`` as it has to be for several workers."""
        return asking(app, ask=self._ask, tell=self._flush)

    async def drain(self, drain_s: float) -> None:
        """Have all workers end once what runs there has ended, and wait for it."""
        self._ending = True
        self._tell(Drain())
        try:
            async with asyncio.timeout(drain_s + LATE_S):
                await self._until(lambda: all(member.pid is None for member in self._members))
        except TimeoutError:
            log.warning("workers that have not ended in time are killed")

    def end_requests(self) -> None:
        """End what still runs there."""
        self._tell(EndRequests())

    async def close(self) -> None:
        """End all that is left."""
        self._ending = True
        await self._tasks.close()
        await self.accounts.close()
        if self._later is not None:
            self._later.cancel()
        for member in self._members:
            self._alarms.off(ALARM, str(member.number))

    # Processes.

    async def _keep_alive(self, member: Member, terms: Terms) -> None:
        while not self._ending:
            patient = AsyncRetrying(
                retry=retry_if_exception_type(_Ended), wait=wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.1)
            )
            await patient(self._live_once, member, terms)

    async def _live_once(self, member: Member, terms: Terms) -> None:
        if self._ending:
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            why = await member.live(terms)
        except OSError as error:
            why = f"could not be started: {error}"
        finally:
            self._ended = together((self._ended, member.export.lasting()))
            member.export = Export()
            self.table.ended(member.number)
            self.accounts.ended(member.number)
            self._ready_or_not()
        self._lost(member, why)
        if loop.time() - started < STEADY_S:
            raise _Ended

    def _lost(self, member: Member, why: str) -> None:
        if self._ending:
            return
        self._metrics.worker_restarts.inc()
        self._events.add("worker_ended", worker=member.number, why=why)
        self._alarms.on(ALARM, str(member.number), f"worker {member.number} {why}; it is started again")

    def _started(self, member: Member) -> None:
        self.table.joined(member.number)
        member.send(self._alarms_now())
        for news in self._lasting.values():
            member.send(news)
        if self._policy is not None:
            member.send(self._policy)
        else:
            self._begin(member)
        if self._ending:
            member.send(Drain())

    def _begin(self, member: Member) -> None:
        if not member.begun:
            member.begun = True
            member.send(Begin())

    def _ready_or_not(self, *, again: bool = True) -> None:
        self._changed.set()
        away = [member.number for member in self._members if not member.takes_connections]
        # Somebody who has just come has not heard of it.
        if not self._ending and (again or away != self._away):
            self._away = away
            self._tell(Cover(away))

    # What workers say.

    def _take(self, member: Member, told: Any) -> None:
        match told:
            case InForce():
                member.in_force = told.version, told.digest
                self.on_in_force()
                self.table.tell_all()
                # Before its first connection it knows what all others know.
                self._flush()
                self._begin(member)
            case Ready():
                member.ready = True
                self._alarms.off(ALARM, str(member.number))
                self._events.add("worker_ready", worker=member.number, pid=member.pid or 0)
                self._ready_or_not()
            case Leaving():
                member.ready = False
                self._ready_or_not()
            case AlarmOn():
                self._alarms.on(told.kind, told.subject, told.text)
                self._tell(self._alarms_now())
            case AlarmOff():
                self._alarms.off(told.kind, told.subject)
                self._tell(self._alarms_now())
            case Happened():
                if self._who_answers.is_news(told):
                    self._events.add(told.kind, **told.fields)
            case Proven():
                self.on_proof(told.key, model=told.model, error=told.error)
            case Telemetry():
                self._changed.set()
            case AccountsAsk():
                self.accounts.take(member.number, told, member.send)
            case _:
                self.table.take(member.number, told, asyncio.get_running_loop().time())

    async def _ask(self) -> None:
        """Have what the workers have counted until now."""
        self._asked = number = self._asked + 1
        asked = [member for member in self._members if member.ready]
        for member in asked:
            member.send(Ask(number))
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._until(lambda: all(member.answered >= number or not member.ready for member in asked))
        except TimeoutError:
            log.warning("not all workers have said in time what they have counted; the last that they said is shown")
        show_elsewhere(self._registry, together([self._ended, *(member.export for member in self._members)]))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # What workers are told.

    def _wanted(self, at_once: bool) -> None:
        loop = asyncio.get_running_loop()
        if at_once:
            if not self._at_once:
                self._at_once = True
                loop.call_soon(self._flush)
        elif self._later is None:
            self._later = loop.call_later(self._pause_s, self._flush)

    def _flush(self) -> None:
        self._at_once = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        counts, common = self.table.news()
        frames = b"".join(framed(message) for message in common)
        for member in self._members:
            if (others := counts.get(member.number)) is not None:
                member.send_framed(framed(others) + frames)
        self._pause_s = max(NEWS_S, PAUSE * (loop.time() - began))

    def _tell(self, message: Message) -> None:
        frame = framed(message)
        for member in self._members:
            member.send_framed(frame)

    def _alarms_now(self) -> AlarmsAre:
        return AlarmsAre([(alarm.kind, alarm.subject) for alarm in self._alarms.current()])

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._look_at_litellm()
            self._ready_or_not(again=False)

    def _look_at_litellm(self) -> None:
        litellm = None if self._providers is None else self._providers.litellm
        if litellm is None or litellm.origin.uds is None:
            return
        found = LitellmIs(litellm.origin.uds, litellm.alive)
        if found != self._lasting.get(LitellmIs):
            self.announce(found)


def _told(kind: type[Policy], version: StoredVersion) -> Policy:
    head = version.head
    return kind(
        head.store_id, head.version, head.digest, version.created_s, version.note, version.author, version.document
    )
