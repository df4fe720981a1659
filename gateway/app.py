"""Assembles the gateway: the one place that knows all parts, and the order in which they start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from gateway.accounts.account_store import AccountStore
from gateway.accounts.accounts import FIRST_EXCHANGE_S, Accounts
from gateway.accounts.caps import Caps
from gateway.accounts.view import AccountsView
from gateway.adapters.keeper import AdapterKeeper
from gateway.control.app import ControlSources, create_control_app
from gateway.dataplane.accounting import Accounting
from gateway.dataplane.attempt import Asker
from gateway.dataplane.collector import collect_rarely
from gateway.dataplane.cross_origin import ENVIRONMENT as CORS_ORIGINS
from gateway.dataplane.endpoint import DataPlane
from gateway.dataplane.interpreter import switch_soon
from gateway.dataplane.listener import NOTICE_S, QuietServer, quiet_server
from gateway.dataplane.record import Record
from gateway.drills.desk import DrillDesk
from gateway.drills.drill import Prover
from gateway.drills.keeper import DrillKeeper
from gateway.drills.witness import FallbackWitness
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets, NewBox
from gateway.fleet.hosted import Hosted
from gateway.fleet.slot_share import Replicas
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.log import log_event
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.orders.keeper import OrderKeeper
from gateway.policy.audit_log import AuditLog
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.follow import PolicyFollower
from gateway.policy.replicas import Heartbeat
from gateway.policy.standing import Replica, Standing
from gateway.policy.store import PolicyStore
from gateway.policy.versions import Head
from gateway.scores.keeper import ScoreKeeper
from gateway.settings import Settings
from gateway.tasks import TaskSet
from gateway.upstream.providers import Providers
from gateway.workers.crew import Crew
from gateway.workers.member import Terms
from gateway.workers.news import OrdersAre
from gateway.workers.port import address_of, listen, share
from gateway.workers.watcher_box import WatcherBox

log = logging.getLogger("failsoft")

ASGIApp = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


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
            redis_url=settings.redis_url, folder=settings.policies, state_dir=settings.state_dir, env=settings.env,
            alarms=self._alarms,
        )  # fmt: skip
        self._crew: Crew | None = None
        new_box: NewBox = Box
        if settings.workers > 1:
            self._crew = Crew(
                settings.workers, registry=self._registry, metrics=self._metrics, alarms=self._alarms,
                events=self._events,
            )  # fmt: skip
            self._crew.on_in_force = self._told_of_policy
            self._follower.on_coming = self._crew.foretell
            new_box = partial(WatcherBox, listener=self._crew.table)
        else:
            self._metrics.workers.set(1)
        self._fleets = Fleets(metrics=self._metrics, alarms=self._alarms, events=self._events, new_box=new_box)
        self._adapters = AdapterKeeper(self._fleets, self._follower, self._metrics, self._alarms, self._events)
        self._heartbeat: Heartbeat | None = None
        if settings.redis_url is not None:
            store = PolicyStore(settings.redis_url)
            self._heartbeat = Heartbeat(
                store, on_change=self._replicas_changed, uniform=random.random, alarms=self._alarms,
                standing=self._standing,
            )  # fmt: skip
            self._follower.on_refusal = self._heartbeat.tell
        self._name = socket.gethostname()
        self._followed: Head | None = None
        self._audit = AuditLog(
            lambda: self._follower.redis_url, alarms=self._alarms, waiting=self._metrics.audit_waiting.set,
            dropped=self._metrics.audit_dropped.inc, clock=time.monotonic,
        )  # fmt: skip
        self._metrics.replicas.set(1)
        self._metrics.before_render(
            lambda: self._metrics.replicas_silent.set(sum(r.is_silent for r in self._gateways()))
        )
        self._providers = Providers(state_dir=settings.state_dir, alarms=self._alarms)
        self._hosted = Hosted(metrics=self._metrics, alarms=self._alarms, events=self._events)
        self._orders = OrderKeeper(metrics=self._metrics, alarms=self._alarms, events=self._events)
        self._scores = ScoreKeeper(self._metrics, self._customers)
        if (crew := self._crew) is not None:
            self._orders.on_change(lambda ends: crew.announce(OrdersAre(dict(ends))))
        self._registry.before_render(lambda: self._metrics.policy_source.replace({(self._follower.source,): 1}))
        visits = self._crew is not None  # Then nobody but drills asks anything in this process.
        shared = visits or settings.redis_url is not None
        self._accounts = Accounts(self._metrics, shared=shared, visits=visits)
        self._account_store: AccountStore | None = None
        known = self._accounts if self._crew is None else self._crew.accounts
        self._caps = Caps(self._metrics, self._alarms, known.spent)
        known.on_spent(self._caps.look)
        self._accounts_view = AccountsView(known, lambda: self._account_store, self._accounts.flush)
        asker = Asker(self._providers, self._hosted)
        prover = Prover(asker, self._fleets, Accounting(self._accounts, self._metrics))
        self._drills = DrillKeeper(prover, metrics=self._metrics, alarms=self._alarms, events=self._events)
        if crew is not None:
            self._drills.on_drill(crew.table.tell_providers)
            crew.on_proof = self._drills.testify
        self._dataplane = DataPlane(
            self._follower,
            self._fleets,
            asker,
            Record(self._metrics, self._events, self._alarms, witness=FallbackWitness(self._drills.testify)),
            forced=self._orders.forced,
            accounts=self._accounts,
            admin_token=settings.admin_token,
            cors_origins=settings.cors_origins,
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
            public.append(listen(settings.host, settings.port))
            address = address_of(public[0])
            self._name = f"{socket.gethostname()}:{public[0].getsockname()[1]}"
            if settings.admin_port is not None:
                admin.append(listen(settings.host, settings.admin_port))
            if self._crew is not None:
                public = share(public.pop(), settings.workers)
            self._follower.before_change(self._accounts.prepare, self._fleets.prepare, self._adapters.prepare)
            self._follower.on_change(self._took_effect)
            await self._follower.start()
            await self._keep_accounts()
            if self._heartbeat is not None:
                self._heartbeat.start()
            await self._orders.start(self._follower.redis_url, settings.state_dir)
            self._drills.start(self._follower.redis_url)
            self._scores.start(self._follower.redis_url)
            self._adapters.start(self._follower.redis_url)
            self._audit.start()
            collect_rarely()
            switch_soon()
            servers = self._servers(public, admin)
            running = [
                self._tasks.spawn(server.serve(sockets=[sock]), name=f"listener on {address_of(sock)}")
                for server, sock in servers
            ]
            for sock in admin:
                log.info("the admin API listens on %s", address_of(sock))
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
            for part in (self._adapters, self._scores, self._drills, self._orders, self._accounts):
                await part.close()
            if self._account_store is not None:
                await self._account_store.close()
            await self._audit.close()
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
            orders=self._orders,
            drills=DrillDesk(self._drills),
            scores=self._scores,
            adapters=self._adapters.status,
            audit=self._audit,
            admin_token=settings.admin_token,
            workers=self._workers,
            accounts=self._accounts_view,
            gateways=self._gateways,
        )
        apps: list[Any] = [create_control_app(sources, admin=settings.admin_port is None)]
        if settings.admin_port is not None:
            apps.append(create_control_app(sources))
        if crew is not None:
            apps = [crew.asking(app) for app in apps]
            env = {**settings.env, CORS_ORIGINS: " ".join(settings.cors_origins)}
            crew.start(Terms(settings.workers, settings.drain_s, settings.log_format, env, public, apps[0]))
            return [(server(app), sock) for app, sock in zip(apps[1:], admin, strict=True)]
        apps[0] = _dispatch(self._dataplane, apps[0])
        return [(server(app), sock) for app, sock in zip(apps, (*public, *admin), strict=True)]

    async def _keep_accounts(self) -> None:
        """From now on limits and usage are shared with all others on the store."""
        try:
            store = self._account_store = AccountStore(self._follower.redis_url)
        except RuntimeError:
            return  # the embedded one did not start; the alarm says so
        if self._crew is not None:
            self._crew.accounts.start(store)
            self._accounts.start(store)
            return
        self._accounts.start(store)
        await self._accounts.begun(FIRST_EXCHANGE_S)

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

    def _gateways(self) -> Sequence[Replica]:
        return self._heartbeat.known if self._heartbeat is not None else ()

    def _customers(self) -> Iterable[str]:
        return () if (policy := self._follower.current) is None else policy.customers

    def _standing(self) -> Standing:
        """What other people's tools are told of this gateway. A version counts once every worker decides by it."""
        return Standing(name=self._name, pid=os.getpid(), in_force=self._followed, refused=self._follower.refusal)

    def _told_of_policy(self) -> None:
        version = self._follower.version
        if version is None:
            return
        if self._crew is not None and not self._crew.decides_by(version.head):
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
        for part in (self._fleets, self._providers, self._hosted, self._adapters, self._drills, self._accounts):
            part.follow(policy)
        if self._crew is not None:
            self._crew.accounts.follow(policy)
        self._caps.follow(policy)
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


def _dispatch(dataplane: DataPlane, control: Any) -> ASGIApp:
    def app(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            return dataplane(scope, receive, send)
        return control(scope, receive, send)  # type: ignore[no-any-return]

    return app
