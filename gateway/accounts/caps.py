"""Daily caps on what customers spend at hosted providers: alarms before and when one is reached, and how it stands."""

from __future__ import annotations

from collections.abc import Callable

from gateway.accounts.usage import NANO
from gateway.observe.alarms import Alarms
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import CompiledPolicy

NEAR = 0.8
"""Of a cap, from where on somebody is told."""

CAP_NEAR = "hosted_cap_near"
CAP_SPENT = "hosted_cap_spent"


class Caps:
    """``spent`` gives a customer's nano-USD of today, of all gateways."""

    def __init__(self, metrics: GatewayMetrics, alarms: Alarms, spent: Callable[[str], int]) -> None:
        self._metrics = metrics
        self._alarms = alarms
        self._spent = spent
        self._caps: dict[str, float] = {}
        self._told: set[str] = set()
        """Customers of whom an alarm may be on."""

    def follow(self, policy: CompiledPolicy) -> None:
        """These caps hold."""
        before = self._caps
        self._caps = {
            name: customer.usd_per_day
            for name, customer in policy.customers.items()
            if customer.usd_per_day is not None
        }
        self._told &= self._caps.keys()
        for name in before.keys() - self._caps.keys():
            self._alarms.off(CAP_NEAR, name)
            self._alarms.off(CAP_SPENT, name)
        self.look()

    def look(self) -> None:
        """Something may have been spent, or a new day has begun."""
        of_cap: dict[tuple[str, ...], float] = {}
        for name, cap in self._caps.items():
            nano = self._spent(name)
            if not nano and cap and name not in self._told:
                of_cap[(name,)] = 0.0  # as it is with most, of whom there may be thousands
                continue
            usd = nano / NANO
            of_cap[(name,)] = usd / cap if cap else 1.0
            spent, near = usd >= cap, usd >= NEAR * cap
            what = f"{name} has spent {usd:.2f} of its {cap:g} USD at hosted providers today (UTC)"
            self._turn(CAP_SPENT, name, spent and cap > 0, f"{what}: they are not asked for it until midnight")
            self._turn(CAP_NEAR, name, near and not spent, what)
        self._metrics.hosted_cap_used.replace(of_cap)

    def _turn(self, kind: str, name: str, on: bool, text: str) -> None:
        if on:
            self._told.add(name)
            self._alarms.on(kind, name, text)
        else:
            self._alarms.off(kind, name)
