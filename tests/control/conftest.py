"""A control plane in front of fleets without probes, and a policy by hand."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
import typer
import uvicorn
from typer.testing import CliRunner, Result

from gateway.control.app import ControlSources, create_control_app
from gateway.dataplane.explain import explain
from gateway.dataplane.retry_budget import RetryBudget
from gateway.drills.desk import DrillDesk
from gateway.drills.drill import Outcome
from gateway.drills.keeper import DrillKeeper
from gateway.drills.target import Target
from gateway.errors import StoreError
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.orders.keeper import OrderKeeper
from gateway.policy.audit_stream import AuditEntry
from gateway.policy.compiled import (
    ApiKey,
    BaseStep,
    BoxSpec,
    CompiledPolicy,
    CustomerPolicy,
    ProviderSpec,
    ProviderStep,
    StaticStep,
)
from gateway.policy.standing import Replica
from gateway.scores.keeper import ScoreKeeper
from gateway.tasks import TaskSet
from tests.fleet.policies import compiled

TOKEN = "an-admin-token"


class RecordedAudit:
    """Remembers what it is told; ``away`` is why the store cannot be asked."""

    def __init__(self) -> None:
        self.changes: list[AuditEntry] = []
        self.refusals: list[AuditEntry] = []
        self.away: StoreError | None = None

    def record(self, entry: AuditEntry) -> None:
        self.changes.append(entry)

    def refused(self, entry: AuditEntry) -> None:
        self.refusals.append(entry)

    async def read(self, *, since_s: float, limit: int) -> tuple[list[AuditEntry], StoreError | None]:
        return [entry for entry in self.changes if entry.at >= since_s][-limit:], self.away


@dataclass(repr=False)
class House:
    """Everything that the control plane reads, to be moved by a test."""

    current: CompiledPolicy | None = None
    source: str = "folder"
    now: float = 100.0
    admin_token: str | None = TOKEN
    registry: Registry = field(default_factory=Registry)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    gateways: tuple[Replica, ...] = ()
    retries: RetryBudget = field(default_factory=lambda: RetryBudget(100.0))

    def __post_init__(self) -> None:
        self.metrics = GatewayMetrics(self.registry)
        self.audit = RecordedAudit()
        self.events = Events(50)
        self.alarms = Alarms(self.metrics, self.events)
        self.fleets = Fleets(
            metrics=self.metrics, alarms=self.alarms, events=self.events, clock=lambda: self.now, probing=False
        )
        self.orders = OrderKeeper(metrics=self.metrics, alarms=self.alarms, events=self.events, clock=lambda: self.now)
        self.drills = DrillKeeper(
            self,
            metrics=self.metrics,
            alarms=self.alarms,
            events=self.events,
            clock=lambda: self.now,
            uniform=lambda: 0.0,
        )
        self.scores = ScoreKeeper(self.metrics, lambda: () if self.current is None else self.current.customers)
        self.hosted = Hosted(metrics=self.metrics, alarms=self.alarms, events=self.events, clock=lambda: self.now)

    def take(self, policy: CompiledPolicy) -> None:
        self.current = policy
        self.fleets.follow(policy)
        self.hosted.follow(policy)
        self.drills.follow(policy)

    async def prove(self, target: Target, payer: CustomerPolicy | None = None) -> Outcome:
        """What a drill comes to: as ``outcomes`` says by the target's name."""
        self.tried.append(target.name)
        return self.outcomes.get(target.name, Outcome("", "generic-mini", 40))

    def sources(self) -> ControlSources:
        return ControlSources(
            policies=self,
            fleets=self.fleets,
            hosted=self.hosted,
            registry=self.registry,
            alarms=self.alarms,
            events=self.events,
            explain=self.explain,
            orders=self.orders,
            drills=DrillDesk(self.drills),
            scores=self.scores,
            audit=self.audit,
            admin_token=self.admin_token,
            gateways=lambda: self.gateways,
            clock=lambda: self.now,
            started_at=100.0,
        )

    def explain(
        self, customer: CustomerPolicy, adapter: str, *, stream: bool, now: float, others: Sequence[str] = ()
    ) -> dict[str, Any]:
        fleet = customer.fleet.name
        return explain(
            customer,
            self.fleets.look(fleet, adapter),
            self.hosted,
            adapter=adapter,
            others=[(other, self.fleets.look(fleet, other)) for other in others],
            stream=stream,
            retries_left=self.retries.left(now),
            now=now,
        )

    def client(self, *, token: str | None = TOKEN, public: bool = True, admin: bool = True) -> httpx2.AsyncClient:
        app = create_control_app(self.sources(), public=public, admin=admin)
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers={} if token is None else {"authorization": f"Bearer {token}"},
        )


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.fleets.close()


@pytest.fixture
async def url(house: House) -> AsyncIterator[str]:
    """The control plane on a real listener."""
    sock = socket.create_server(("127.0.0.1", 0))
    app = create_control_app(house.sources())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    tasks = TaskSet()
    task = tasks.spawn(server.serve(sockets=[sock]), name="control plane")
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await task
    sock.close()


async def run(command: Callable[..., None], *arguments: str, token: str = TOKEN, columns: int = 200) -> Result:
    """Run one subcommand as its own command line, beside the event loop."""
    app = typer.Typer()
    app.command()(command)
    env = {"FAILSOFT_ADMIN_TOKEN": token, "COLUMNS": str(columns), "TERM": "dumb"}
    return await asyncio.to_thread(CliRunner().invoke, app, [*arguments], env=env)


@pytest.fixture
def policy() -> CompiledPolicy:
    boxes = [BoxSpec(name, "main", f"http://{name}:8000", 8, 64, api_key="box-secret") for name in ("a", "b")]
    policy = compiled(*boxes, adapters=("acme_v3", "acme_v4"))
    hosted = ProviderSpec("hosted", "openai/gpt-4o-mini", None, api_key="provider-secret")
    acme = replace(
        policy.customers["acme"],
        steps=(ProviderStep(hosted, hosted.model, system_prompt="As Acme."), BaseStep(), StaticStep("Later.")),
    )
    digest = b"\x9f" * 32
    return replace(
        policy,
        providers={"hosted": hosted},
        customers={"acme": acme},
        keys={digest: ApiKey(digest, acme, name="ci", expires=dt.date(2027, 1, 1))},
        warnings=("acme: a warning",),
    )
