"""What the control plane reads: handed in, so that it runs against stand-ins as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.accounts.view import AccountsView
from gateway.errors import StoreError
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import Registry
from gateway.orders.keeper import OrderKeeper
from gateway.policy.audit_stream import AuditEntry
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy
from gateway.policy.standing import Replica
from gateway.scores.keeper import ScoreKeeper

SNAPSHOT = "snapshot"
"""The policy source of a gateway that could not reach its store and serves on with what it last knew."""


class Policies(Protocol):
    """The policy in force, as the follower has it."""

    @property
    def current(self) -> CompiledPolicy | None:
        """The version in force; None before the first one."""

    @property
    def source(self) -> str:
        """Where it came from: ``folder``, ``store``, ``snapshot``; ``none`` before the first."""


class Explain(Protocol):
    """Who makes plans, as one who only looks."""

    def __call__(
        self, customer: CustomerPolicy, adapter: str, *, stream: bool, now: float, others: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The plan for a request for one of ``customer``'s own adapters at ``now``, and every number behind it.

        ``others``: what may stand in for it, where an alias was asked for.
        """


class Drills(Protocol):
    """Who proves that each fallback works, and knows when it was proven."""

    def overview(self) -> dict[str, Any]:
        """All steps, and of the single ways to fall back those that need a look first."""

    def of(self, customer: str) -> list[dict[str, Any]]:
        """All ways of one customer to fall back."""

    async def drill(self, customer: CustomerPolicy, provider: str | None) -> list[dict[str, Any]]:
        """Try each of them now (or those that ask ``provider``)."""


class Audit(Protocol):
    """Where uses of the admin API are written down: :class:`gateway.policy.audit_log.AuditLog`."""

    def record(self, entry: AuditEntry) -> None:
        """Something was changed."""

    def refused(self, entry: AuditEntry) -> None:
        """Somebody was not let in."""

    async def read(self, *, since_s: float, limit: int) -> tuple[list[AuditEntry], StoreError | None]:
        """The latest entries since a Unix time, and why they are not all."""


@dataclass(frozen=True, slots=True)
class ControlSources:
    """Everything the control plane shows. ``explain`` is the data plane's, ``workers`` the processes that answer,
    ``adapters`` how those on the boxes are kept as policies name them, ``accounts`` what customers have used,
    ``gateways`` all on the same store, those that are silent too.

    ``clock`` is monotonic and the one of the breakers, in seconds.
    """

    policies: Policies
    fleets: Fleets
    hosted: Hosted
    registry: Registry
    alarms: Alarms
    events: Events
    explain: Explain
    orders: OrderKeeper
    drills: Drills
    scores: ScoreKeeper
    audit: Audit
    admin_token: str | None = field(repr=False)
    workers: Callable[[], list[dict[str, Any]]] = list
    adapters: Callable[[], list[dict[str, Any]]] = list
    accounts: AccountsView | None = None
    gateways: Callable[[], Sequence[Replica]] = tuple
    clock: Callable[[], float] = time.monotonic
    started_at: float = field(default_factory=time.monotonic)

    @property
    def uptime_s(self) -> float:
        """Seconds since the gateway started."""
        return self.clock() - self.started_at
