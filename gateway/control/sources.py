"""What the control plane reads: handed in, so that it runs against stand-ins as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import Registry
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy
from gateway.policy.standing import Replica

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

    def __call__(self, customer: CustomerPolicy, model: str, *, stream: bool, now: float) -> dict[str, Any]:
        """The plan for a request for one of ``customer``'s own models at ``now``, and every number behind it."""


@dataclass(frozen=True, slots=True)
class ControlSources:
    """Everything the control plane shows. ``explain`` is the data plane's, ``workers`` the processes that answer,
    ``gateways`` all that live on the same store.

    ``clock`` is monotonic and the one of the breakers, in seconds.
    """

    policies: Policies
    fleets: Fleets
    hosted: Hosted
    registry: Registry
    alarms: Alarms
    events: Events
    explain: Explain
    admin_token: str | None = field(repr=False)
    workers: Callable[[], list[dict[str, Any]]] = list
    gateways: Callable[[], Sequence[Replica]] = tuple
    clock: Callable[[], float] = time.monotonic
    started_at: float = field(default_factory=time.monotonic)

    @property
    def uptime_s(self) -> float:
        """Seconds since the gateway started."""
        return self.clock() - self.started_at
