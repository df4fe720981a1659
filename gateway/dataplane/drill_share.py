"""Which requests take part in a drill, where a customer's policy gives a share of its traffic to it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.policy.compiled import CustomerPolicy, Step


class DrillShare:
    """``uniform`` gives numbers from 0 to 1."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._turns: dict[str, int] = {}

    def draw(self, customer: CustomerPolicy) -> Step | None:
        """The step that the customer's next request has to try first, each in its turn; None for most."""
        if self._uniform() >= customer.drill_share or not (steps := customer.drillable):
            return None
        turn = self._turns[customer.name] = self._turns.get(customer.name, -1) + 1
        return steps[turn % len(steps)]
