"""A watcher's table and some workers' boxes in one process, with every message between them held until it is let go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.fleet.shared_breaker import TrialTurns
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import BoxSpec, CompiledPolicy
from gateway.workers.messages import FromWorker, Message
from gateway.workers.news import Counts, Eject, FromWatcher, ProvidersAre, States
from gateway.workers.reporter import Reporter
from gateway.workers.table import Table
from gateway.workers.watcher_box import WatcherBox
from gateway.workers.worker import boxes_and_providers
from gateway.workers.worker_box import WorkerBox
from gateway.workers.worker_health import WorkerHealth
from tests.fleet.policies import compiled

SPEC = BoxSpec(name="a", url="http://127.0.0.1:9", max_loras=2, max_cpu_loras=8, fleet="main")

_encode = msgspec.msgpack.encode
_up = msgspec.msgpack.Decoder(FromWorker)
_down = msgspec.msgpack.Decoder(FromWatcher)


class OneWorker:
    """Its boxes and providers; ``up`` holds what it says, ``down`` what is said to it, ``later`` its timers."""

    def __init__(self, number: int, count: int, policy: CompiledPolicy) -> None:
        self.number = number
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.later: list[Callable[[], None]] = []
        self.reporter = Reporter(self._say, self.later.append, TrialTurns(number, count))
        self.fleets, self.hosted = boxes_and_providers(self.reporter)
        self.fleets.follow(policy)
        self.hosted.follow(policy)
        self._heard = 0

    @property
    def box(self) -> WorkerBox:
        """The one box."""
        (box,) = self.fleets.all()
        assert isinstance(box, WorkerBox)
        return box

    def report(self) -> None:
        """Its timers are due."""
        due, self.later[:] = list(self.later), []
        for call in due:
            call()

    def hear(self) -> None:
        """One message comes down."""
        news: Any = _down.decode(self.down.popleft())
        match news:
            case Counts():
                self._heard = news.number
                self.reporter.heard(news.number)
                for counts in news.boxes:
                    self.box.follow_counts(counts.held)
            case States():
                for engine in news.engines:
                    self.box.follow_engine(engine)
                for load in news.loads:
                    self.box.follow_load(load)
                for standing in news.standings:
                    self.box.follow_standing(standing, self._heard)
            case ProvidersAre():
                for provider in news.providers:
                    health = self.hosted.all()[provider.name]
                    assert isinstance(health, WorkerHealth)
                    health.follow(provider, self._heard)
            case Eject():
                self.box.eject(0.0, news.why, silent=news.silent)

    def _say(self, message: Message) -> None:
        self.up.append(_encode(message))


class Several:
    """A watcher and ``count`` workers before one box."""

    def __init__(self, count: int, policy: CompiledPolicy | None = None) -> None:
        self.policy = policy or compiled(SPEC)
        self.table = Table(lambda at_once: None)
        self.registry = Registry()
        self.metrics, self.events = GatewayMetrics(self.registry), Events()
        self.alarms = Alarms(self.metrics, self.events)
        self.fleets = Fleets(
            metrics=self.metrics,
            alarms=self.alarms,
            events=self.events,
            probing=False,
            new_box=partial(WatcherBox, listener=self.table),
        )
        self.fleets.follow(self.policy)
        self.hosted = Hosted(metrics=self.metrics, alarms=self.alarms, events=self.events)
        self.hosted.follow(self.policy)
        self.workers: dict[int, OneWorker] = {}
        self._count = count
        for number in range(count):
            self.start(number)

    @property
    def box(self) -> WatcherBox:
        """The watcher's."""
        (box,) = self.fleets.all()
        assert isinstance(box, WatcherBox)
        return box

    def start(self, number: int) -> OneWorker:
        """A worker comes."""
        worker = self.workers[number] = OneWorker(number, self._count, self.policy)
        self.table.joined(number)
        self.table.follow(self.fleets, self.hosted)
        return worker

    def kill(self, number: int) -> None:
        """A worker ends; what it had said is read first."""
        while self.workers[number].up:
            self.read(number)
        del self.workers[number]
        self.table.ended(number)

    def read(self, number: int) -> None:
        """One message of a worker's comes up."""
        told: Any = _up.decode(self.workers[number].up.popleft())
        self.table.take(number, told, 0.0)

    def tell(self) -> None:
        """The watcher says what is new."""
        counts, common = self.table.news()
        for number, worker in self.workers.items():
            worker.down.extend(_encode(message) for message in (counts[number], *common))

    def settle(self) -> None:
        """Every message is heard."""
        for _ in range(3):
            for number, worker in self.workers.items():
                worker.report()
                while worker.up:
                    self.read(number)
            self.tell()
            for worker in self.workers.values():
                while worker.down:
                    worker.hear()
