"""One worker: answers clients with the same data plane as a gateway of one process, and asks its watcher for the rest.

It takes connections once it has a policy, and ends when its watcher does.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gateway.accounts.accounts import FIRST_EXCHANGE_S, Accounts
from gateway.dataplane.attempt import Asker
from gateway.dataplane.collector import collect_rarely
from gateway.dataplane.cross_origin import origins_of
from gateway.dataplane.endpoint import DataPlane
from gateway.dataplane.interpreter import switch_soon
from gateway.dataplane.listener import QuietServer, quiet_server
from gateway.dataplane.record import Record
from gateway.drills.witness import FallbackWitness
from gateway.errors import PolicyError
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.fleet.shared_breaker import TrialTurns
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.export import export
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.orders.forced import Forced
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.recompile import Compiler
from gateway.policy.succession import with_predecessors
from gateway.policy.versions import StoredVersion
from gateway.tasks import TaskSet
from gateway.upstream.providers import Providers
from gateway.workers.account_line import AccountLine
from gateway.workers.control_line import ControlLine
from gateway.workers.line import Line
from gateway.workers.messages import InForce, Leaving, Proven, Ready, Telemetry
from gateway.workers.news import (
    AccountsTold,
    AlarmsAre,
    Ask,
    Begin,
    BoxCounts,
    Coming,
    Counts,
    Cover,
    Drain,
    Eject,
    EndRequests,
    Engine,
    FromWatcher,
    HomesAre,
    LitellmIs,
    Load,
    OrdersAre,
    Policy,
    ProvidersAre,
    Standing,
    States,
)
from gateway.workers.remote_litellm import RemoteLitellm
from gateway.workers.reporter import REPORT_S, Reporter
from gateway.workers.told_watchers import ToldAlarms, told_events
from gateway.workers.worker_box import WorkerBox
from gateway.workers.worker_health import WorkerHealth

log = logging.getLogger(__name__)

TELEMETRY_S = 1.0
"""How often a worker says what it has counted, and that it lives."""

LIFE_S = 0.25
"""How often running answers alone are reported: a probe looks at seconds."""

OfBox = TypeVar("OfBox", BoxCounts, Engine, Load, Standing, Eject)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many ``workers`` it is, counted from 0, and how long running answers may go on at its end."""

    worker: int
    workers: int
    drain_s: float


def boxes_and_providers(reporter: Reporter) -> tuple[Fleets, Hosted]:
    """As a worker has them. It is the watcher that counts and tells of them, for all workers."""
    nobodys = GatewayMetrics(Registry())
    unheard = Events(capacity=1)
    unseen = Alarms(nobodys, unheard)
    fleets = Fleets(
        metrics=nobodys,
        alarms=unseen,
        events=unheard,
        probing=False,
        suspecting=False,
        new_box=partial(WorkerBox, reporter=reporter),
    )
    hosted = Hosted(metrics=nobodys, alarms=unseen, events=unheard, new_health=partial(WorkerHealth, reporter=reporter))
    return fleets, hosted


class Worker:
    """``run`` serves until the watcher says so or is gone. ``current`` is the policy in force."""

    def __init__(self, place: Place, env: Mapping[str, str]) -> None:
        self._place = place
        self._compiler = Compiler(env)
        self.current: CompiledPolicy | None = None
        self._stopping = asyncio.Event()
        self._begin = asyncio.Event()
        self._tasks = TaskSet()
        self._line = Line(FromWatcher, on_message=self._take, on_end=self._watcher_gone)
        self._control = ControlLine()
        self._reporter = Reporter(self._line.send, _later, TrialTurns(place.worker, place.workers))
        self._registry = Registry()
        self._metrics = GatewayMetrics(self._registry)
        self._alarms = ToldAlarms(self._line.send)
        self._fleets, self._hosted = boxes_and_providers(self._reporter)
        self._forced = Forced()
        self._litellm = RemoteLitellm()
        self._providers = Providers(
            state_dir=Path(), alarms=self._alarms, new_litellm=lambda state_dir, alarms: self._litellm
        )
        witness = FallbackWitness(self._tell_of_fallback)
        self._account_line = AccountLine(self._line.send)
        self._accounts = Accounts(self._metrics, shared=True)
        self._dataplane = DataPlane(
            self,
            self._fleets,
            Asker(self._providers, self._hosted),
            Record(self._metrics, told_events(self._line.send), self._alarms, witness=witness),
            retry_share=1 / place.workers,
            forced=self._forced,
            accounts=self._accounts,
            admin_token=env.get("FAILSOFT_ADMIN_TOKEN"),
            cors_origins=origins_of(env),
        )
        self._boxes: dict[str, WorkerBox] = {}
        self._policies: asyncio.Queue[Policy] = asyncio.Queue()
        self._away: asyncio.Queue[set[int]] = asyncio.Queue()
        self._heard = 0
        self._registry.before_render(self._show_connections)

    def stop(self) -> None:
        """Begin to drain. Called twice, running streams are ended with an error frame."""
        if self._stopping.is_set():
            self._dataplane.end_requests()
        self._stopping.set()

    def _watcher_gone(self) -> None:
        self._account_line.lose()
        self.stop()

    async def run(self, listeners: Sequence[socket.socket], line: socket.socket, control: socket.socket) -> None:
        """Serve on its own of ``listeners``, or on the one for all; ``line`` and ``control`` are socket pairs whose
        other ends the watcher has.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self._line.open(line)
            await self._control.open(control)
            self._tasks.spawn(self._follow_policies(), name="policies")
            self._accounts.start(self._account_line)
            self._tasks.spawn(self._say_what_was_counted(), name="telemetry")
            self._tasks.spawn(self._look_for_life(), name="signs of life")
            stopping = self._tasks.spawn(self._stopping.wait(), name="until told to stop")
            begun = self._tasks.spawn(self._begin.wait(), name="until told to begin")
            await asyncio.wait([stopping, begun], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                # Those that a gateway left behind that was killed are known to be dead, and shared out, after a second.
                settled = self._tasks.spawn(self._accounts.begun(FIRST_EXCHANGE_S), name="until limits are shared")
                await asyncio.wait([stopping, settled], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                await self._serve(listeners, stopping)
        finally:
            for listener in listeners:
                listener.close()
            await self._accounts.close()
            self._reporter.flush(self._fleets.take_traffic())
            self._tell_what_was_counted(0)
            await self._tasks.close()
            await self._fleets.close()
            await self._providers.close()
            await self._line.hang_up()

    async def _serve(self, listeners: Sequence[socket.socket], stopping: asyncio.Task[Any]) -> None:
        collect_rarely()
        switch_soon()
        server = quiet_server(self._app, drain_s=self._place.drain_s)
        own = listeners[self._place.worker % len(listeners)]
        serving = self._tasks.spawn(server.serve(sockets=[own]), name="listener")
        listening = self._tasks.spawn(server.started_event.wait(), name="until it listens")
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        self._line.send(Ready())
        if len(listeners) > 1:
            self._tasks.spawn(self._cover(server, listeners), name="the sockets of workers that are away")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        timer = asyncio.get_running_loop().call_later(self._place.drain_s, self._dataplane.end_requests)
        server.should_exit = True
        self._line.send(Leaving())
        await asyncio.wait([serving])
        timer.cancel()
        serving.result()

    async def _cover(self, server: QuietServer, listeners: Sequence[socket.socket]) -> None:
        covered: dict[int, asyncio.Server] = {}
        while not self._stopping.is_set():
            away = await self._away.get()
            for worker in covered.keys() - away:
                covered.pop(worker).close()
            for worker in away - covered.keys() - {self._place.worker}:
                covered[worker] = await server.listen_also(listeners[worker].dup())

    def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            return self._dataplane(scope, receive, send)
        return self._control(scope, receive, send)

    # What the watcher says.

    def _take(self, news: Any) -> None:
        match news:
            case Counts():
                self._heard = news.number
                self._reporter.heard(news.number)
                for box, counts in self._known(news.boxes):
                    box.follow_counts(counts.held)
            case States():
                for box, engine in self._known(news.engines):
                    box.follow_engine(engine)
                for box, load in self._known(news.loads):
                    box.follow_load(load)
                for box, standing in self._known(news.standings):
                    box.follow_standing(standing, self._heard)
            case Eject():
                now = asyncio.get_running_loop().time()
                for box, _ in self._known([news]):
                    box.eject(now, news.why, silent=news.silent)
            case ProvidersAre():
                known = self._hosted.all()
                for provider in news.providers:
                    health = known.get(provider.name)
                    if isinstance(health, WorkerHealth):
                        health.follow(provider, self._heard)
            case HomesAre():
                if (homes := self._fleets.homes.get(news.fleet)) is not None:
                    homes.adopt(news.homes)
            case Policy():  # Coming too
                self._policies.put_nowait(news)
            case OrdersAre():
                self._forced.ends = news.ends
            case AccountsTold():
                self._account_line.take(news)
            case AlarmsAre():
                self._alarms.follow(news.alarms)
            case LitellmIs():
                self._litellm.follow(news.path, alive=news.alive)
            case Ask():
                self._tell_what_was_counted(news.asked)
            case Begin():
                self._begin.set()
            case Cover():
                self._away.put_nowait(set(news.workers))
            case Drain():
                self._stopping.set()
            case EndRequests():
                self._stopping.set()
                self._dataplane.end_requests()

    def _known(self, news: Iterable[OfBox]) -> Iterator[tuple[WorkerBox, OfBox]]:
        """Those of ``news`` that are about boxes of the policy here; of others it is heard again with their policy."""
        for one in news:
            if (box := self._boxes.get(one.key)) is not None:
                yield box, one

    def _compiled(self, version: StoredVersion) -> CompiledPolicy:
        self._accounts.prepare(compiled := with_predecessors(self._compiler.compile(version), self.current))
        self._fleets.prepare(compiled)
        return compiled

    async def _follow_policies(self) -> None:
        while True:
            policy = await self._policies.get()
            while not self._policies.empty():
                newer = self._policies.get_nowait()
                policy = policy if isinstance(newer, Coming) and not isinstance(policy, Coming) else newer
            version = policy.as_stored()
            if isinstance(policy, Coming):
                with suppress(PolicyError):  # which the watcher tells
                    await asyncio.to_thread(self._compiler.compile, version)
                continue
            try:
                self.current = current = await asyncio.to_thread(self._compiled, version)
            except Exception:
                # The watcher has compiled the same: without this version a worker would answer as nobody wants.
                log.exception("worker %d cannot use %s", self._place.worker, version.head)
                self.stop()
                return
            for part in (self._fleets, self._providers, self._hosted, self._accounts):
                part.follow(current)
            boxes = [box for box in self._fleets.with_those_that_leave() if isinstance(box, WorkerBox)]
            self._boxes = {box.key: box for box in boxes}
            self._line.send(InForce(current.version, policy.digest))

    # What is told without being asked.

    async def _say_what_was_counted(self) -> None:
        while True:
            await asyncio.sleep(TELEMETRY_S)
            self._tell_what_was_counted(0)
            self._reporter.flush(self._fleets.take_traffic())

    def _tell_what_was_counted(self, asked: int) -> None:
        self._line.send(Telemetry(asked, self._dataplane.in_flight, export(self._registry)))

    def _tell_of_fallback(self, key: str, *, model: str, error: str) -> None:
        self._line.send(Proven(key, model, error))

    async def _look_for_life(self) -> None:
        while True:
            await asyncio.sleep(LIFE_S)
            for box in self._boxes.values():
                box.look_for_life()

    def _show_connections(self) -> None:
        connections: dict[tuple[str, ...], float] = {}
        for box in self._fleets.all():
            connections[f"box:{box.name}", "idle"] = box.pool.idle
            connections[f"box:{box.name}", "busy"] = box.pool.in_use
        self._metrics.pool_connections.replace(connections)


def _later(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(REPORT_S, call)
