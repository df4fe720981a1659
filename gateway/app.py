"""Assembles the gateway: the one place that knows all parts, and the order in which they start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gateway.control.app import ControlSources, create_control_app
from gateway.dataplane.attempt import Asker
from gateway.dataplane.collector import collect_rarely
from gateway.dataplane.endpoint import DataPlane
from gateway.dataplane.interpreter import switch_soon
from gateway.dataplane.listener import NOTICE_S, QuietServer, quiet_server
from gateway.dataplane.record import Record
from gateway.errors import FailsoftError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets, NewBox
from gateway.fleet.hosted import Hosted
from gateway.fleet.slot_share import Replicas
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.log import LogFormat, log_event
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.follow import PolicyFollower
from gateway.policy.replicas import Heartbeat
from gateway.policy.standing import Standing
from gateway.policy.store import PolicyStore
from gateway.policy.versions import Head
from gateway.tasks import TaskSet
from gateway.upstream.providers import Providers
from gateway.workers.crew import Crew
from gateway.workers.member import Terms
from gateway.workers.port import BACKLOG, sockets_at
from gateway.workers.watcher_box import WatcherBox

log = logging.getLogger("failsoft")

ASGIApp = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `failsoft serve` was told. ``drain_s``: how long running answers may go on after SIGTERM. ``workers``: the
    processes that answer clients; with more than one, this one watches over them."""

    policies: Path | None
    redis_url: str | None
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int | None = None
    admin_token: str | None = None
    workers: int = 1
    drain_s: float = 30.0
    log_format: LogFormat = "human"
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class ListenError(FailsoftError):
    """An address could not be listened on."""


class Gateway:
    """The gateway's process. ``run`` serves until SIGTERM or SIGINT, or until ``stop`` is called."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._tasks = TaskSet()
        self._registry = Registry(process=True)
        self._metrics = GatewayMetrics(self._registry)
        self._events = Events(echo=log_event)
        self._alarms = Alarms(self._metrics, self._events)
        self._follower = PolicyFollower(
            redis_url=settings.redis_url,
            folder=settings.policies,
            state_dir=settings.state_dir,
            env=settings.env,
            alarms=self._alarms,
        )
        self._crew: Crew | None = None
        new_box: NewBox = Box
        if settings.workers > 1:
            self._crew = Crew(
                settings.workers,
                registry=self._registry,
                metrics=self._metrics,
                alarms=self._alarms,
                events=self._events,
            )
            self._crew.on_in_force = self._told_of_policy
            new_box = partial(WatcherBox, listener=self._crew.table)
        else:
            self._metrics.workers.set(1)
        self._fleets = Fleets(metrics=self._metrics, alarms=self._alarms, events=self._events, new_box=new_box)
        self._heartbeat: Heartbeat | None = None
        if settings.redis_url is not None:
            store = PolicyStore(settings.redis_url)
            self._heartbeat = Heartbeat(
                store, on_change=self._replicas_changed, uniform=random.random, standing=self._standing
            )
            self._follower.on_refusal = self._heartbeat.tell
        self._name = socket.gethostname()
        self._followed: Head | None = None
        self._metrics.replicas.set(1)
        self._providers = Providers(state_dir=settings.state_dir, alarms=self._alarms)
        self._hosted = Hosted(metrics=self._metrics, alarms=self._alarms, events=self._events)
        self._registry.before_render(lambda: self._metrics.policy_source.replace({(self._follower.source,): 1}))
        self._dataplane = DataPlane(
            self._follower,
            self._fleets,
            Asker(self._providers, self._hosted),
            Record(self._metrics, self._events, self._alarms),
        )

    def stop(self) -> None:
        """Begin to drain. Called twice, or past the drain time, running streams are ended with an error frame."""
        if self._stopping.is_set():
            self._dataplane.end_requests()
            if self._crew is not None:
                self._crew.end_requests()
        self._stopping.set()

    async def run(self, ready: Callable[[str], None] = lambda address: None) -> None:
        """Serve. ``ready`` is told the address as soon as connections are taken.

        Raises :class:`ListenError` where an address is taken, :class:`gateway.errors.PolicyError` where there is no
        usable policy and none was ever known.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        public: list[socket.socket] = []
        admin: list[socket.socket] = []
        try:
            public.append(_listen(settings.host, settings.port))
            address = _address(public[0])
            self._name = f"{socket.gethostname()}:{public[0].getsockname()[1]}"
            if settings.admin_port is not None:
                admin.append(_listen(settings.host, settings.admin_port))
            if self._crew is not None:
                public = _share(public.pop(), settings.workers)
            self._follower.on_change(self._took_effect)
            await self._follower.start()
            if self._heartbeat is not None:
                self._heartbeat.start()
            collect_rarely()
            switch_soon()
            servers = self._servers(public, admin)
            running = [
                self._tasks.spawn(server.serve(sockets=[sock]), name=f"listener on {_address(sock)}")
                for server, sock in servers
            ]
            for sock in admin:
                log.info("the admin API listens on %s", _address(sock))
            stopping = self._tasks.spawn(self._stopping.wait(), name="until told to stop")
            if self._crew is not None:
                up = self._tasks.spawn(self._crew.ready(), name="until all workers are ready")
                await asyncio.wait([stopping, up, *running], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                ready(address)
            # A listener that ends by itself is a defect: better to end than to look alive.
            await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            await self._drain([server for server, _ in servers], running, public)
            for task in running:
                task.result()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await self._tasks.close()
            if self._crew is not None:
                await self._crew.close()
            for sock in (*public, *admin):
                sock.close()
            if self._heartbeat is not None:
                await self._heartbeat.close()
            await self._follower.close()
            await self._fleets.close()
            await self._providers.close()

    def _servers(
        self, public: list[socket.socket], admin: list[socket.socket]
    ) -> list[tuple[QuietServer, socket.socket]]:
        """Who listens where in this process. Of several, the workers have the public sockets."""
        settings, crew = self._settings, self._crew
        server = partial(quiet_server, drain_s=settings.drain_s)
        sources = ControlSources(
            policies=self._follower,
            fleets=self._fleets,
            hosted=self._hosted,
            registry=self._registry,
            alarms=self._alarms,
            events=self._events,
            explain=self._dataplane.explain,
            admin_token=settings.admin_token,
            workers=self._workers,
            gateways=lambda: self._heartbeat.alive if self._heartbeat is not None else (),
        )
        apps: list[Any] = [create_control_app(sources, admin=settings.admin_port is None)]
        if settings.admin_port is not None:
            apps.append(create_control_app(sources))
        if crew is not None:
            apps = [crew.asking(app) for app in apps]
            crew.start(Terms(settings.workers, settings.drain_s, settings.log_format, settings.env, public, apps[0]))
            return [(server(app), sock) for app, sock in zip(apps[1:], admin, strict=True)]
        apps[0] = _dispatch(self._dataplane, apps[0])
        return [(server(app), sock) for app, sock in zip(apps, (*public, *admin), strict=True)]

    def _workers(self) -> list[dict[str, Any]]:
        if self._crew is not None:
            return self._crew.members()
        in_flight = self._dataplane.in_flight
        version = 0 if self._follower.current is None else self._follower.current.version
        one = {"worker": 0, "pid": os.getpid(), "alive": True, "ready": True}
        return [{**one, "in_flight": in_flight, "policy_version": version}]

    async def _drain(
        self, servers: list[QuietServer], running: list[asyncio.Task[Any]], public: list[socket.socket]
    ) -> None:
        # Also wakes the long polls of those who watch, which would hold the listeners open.
        crew = self._crew
        self._events.add("draining", in_flight=self._dataplane.in_flight if crew is None else crew.in_flight)
        log.info("draining: running answers have %.0f s to end", self._settings.drain_s)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._settings.drain_s, self._dataplane.end_requests)
        for server in servers:
            server.should_exit = True
        if crew is not None:
            for sock in public:
                sock.close()
            await crew.drain(self._settings.drain_s + NOTICE_S)
        if running:
            await asyncio.wait(running)
        timer.cancel()

    def _standing(self) -> Standing:
        """What other people's tools are told of this gateway. A version counts once every worker decides by it."""
        return Standing(name=self._name, pid=os.getpid(), in_force=self._followed, refused=self._follower.refusal)

    def _told_of_policy(self) -> None:
        version = self._follower.version
        if version is None:
            return
        deciding = [worker["policy_version"] for worker in self._workers() if worker["ready"]]
        if any(one != version.head.version for one in deciding):
            return
        self._followed = version.head
        if self._heartbeat is not None:
            self._heartbeat.tell()

    def _replicas_changed(self, alive: int, rank: int) -> None:
        if alive != self._fleets.replicas.alive:
            log.info("%d gateways live on this store: this one counts on its share of the boxes' LoRA slots", alive)
            self._events.add("replicas", alive=alive)
        self._metrics.replicas.set(alive)
        self._fleets.share_with(Replicas(alive, rank))
        if self._crew is not None:
            self._crew.table.tell_all()

    def _took_effect(self, policy: CompiledPolicy) -> None:
        self._fleets.follow(policy)
        self._providers.follow(policy)
        self._hosted.follow(policy)
        if self._crew is not None and self._follower.version is not None:
            self._crew.follow(self._follower.version, self._fleets, self._hosted, self._providers)
        self._told_of_policy()
        self._metrics.policy_version.set(policy.version)
        self._metrics.policy_applied_timestamp_seconds.set(policy.created_s)
        self._events.add(
            "policy", version=policy.version, customers=len(policy.customers), source=self._follower.source
        )
        for warning in policy.warnings:
            log.warning("policy: %s", warning)
        for line in policy.not_in_force:
            log.warning("not in force in this release: %s", line)


def _dispatch(dataplane: DataPlane, control: Any) -> ASGIApp:
    def app(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            return dataplane(scope, receive, send)
        return control(scope, receive, send)  # type: ignore[no-any-return]

    return app


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another address.") from error
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _share(first: socket.socket, workers: int) -> list[socket.socket]:
    host, port = first.getsockname()[:2]
    try:
        return sockets_at(first, workers)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port} {workers} times: {error.strerror}.") from error


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
