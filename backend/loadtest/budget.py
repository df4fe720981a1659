"""What each customer was promised: how long its answers may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.loadtest.sample import Sample
from gateway.policy.effective import TTFT_BUDGET_S, effective
from gateway.policy.policy_set import PolicySet

PLAIN_BUDGET_S = 30.0


@dataclass(frozen=True, slots=True)
class Budget:
    """In seconds. ``ttft_s``: of a stream, until its first content; ``plain_s``: of a plain answer, until its end."""

    ttft_s: float = TTFT_BUDGET_S
    plain_s: float = PLAIN_BUDGET_S

    def kept(self, sample: Sample) -> bool:
        """Whether an answer came whole and in time."""
        if sample.error is not None:
            return False
        taken_s, allowed_s = (sample.ttft_s, self.ttft_s) if sample.arrival.streamed else (sample.e2e_s, self.plain_s)
        return taken_s is not None and taken_s <= allowed_s


@dataclass(frozen=True, slots=True)
class Budgets:
    """Of all customers; ``usual`` for those that are not named."""

    usual: Budget = field(default_factory=Budget)
    by_customer: Mapping[str, Budget] = field(default_factory=dict)

    def of(self, customer: str) -> Budget:
        """One customer's."""
        return self.by_customer.get(customer, self.usual)


def from_policies(policies: PolicySet, usual: Budget) -> Budgets:
    """The ``ttft_budget`` and ``plain_budget`` that hold for each customer."""
    found = {}
    for customer in policies.customers:
        rules = effective(policies.defaults, customer, policies.fleet.providers)
        found[customer.customer] = Budget(rules.ttft_budget_s, rules.plain_budget_s)
    return Budgets(usual, found)
