"""`decide`: the plan for one request, from the policy, the fleet as it is seen now, and the request.

Pure: it reads no socket and no clock, so that the gateway, `failsoft explain`, the simulator and the property tests
run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import Reason
from gateway.policy.compiled import CustomerPolicy, Step

MAX_OWN_ATTEMPTS = 3
"""Attempts at the own adapter before the fallback (invariant I5)."""


class BoxView(Protocol):
    """What a decision sees of a box."""

    @property
    def name(self) -> str:
        """The box's name in the fleet's YAML."""

    @property
    def fails_fast(self) -> bool:
        """Whether asking it costs no waiting: its breaker is closed, or opened by refusals or errors."""

    def has_its_share(self, now: float) -> bool:
        """Whether others are to be asked first, as it comes back and is still in its ramp."""

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        """Whether a request for this adapter would not see its first token within ``budget_s``."""

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        """None where the box may be asked for this adapter (None: for the base); else why not."""


@dataclass(slots=True, eq=False)
class Plan:
    """The ordered attempts for one request.

    ``own``: boxes to ask for the customer's adapter. ``withheld``: why a box was left out, where one was; it is the
    answer's reason if no box is left to ask. ``steps``: the fallback. ``boxes``: all boxes of the fleet in the order of
    preference, for a ``base`` step. ``last_resort``: boxes that are too busy, whose breaker is open or that lacked the
    adapter, asked only when all else has failed: as long as one target may be healthy, no 5xx is due.
    """

    adapter: str
    own: tuple[BoxView, ...]
    withheld: Reason | None
    steps: tuple[Step, ...]
    boxes: tuple[BoxView, ...]
    last_resort: tuple[BoxView, ...]


def first_token_budget_s(policy: CustomerPolicy, *, stream: bool) -> float:
    """What a box's estimate is compared with."""
    # Of a plain request's budget the first box may take half (see Journey), and most of that is for the answer itself.
    return policy.ttft_budget_s if stream else policy.plain_budget_s / 2


def decide(
    policy: CustomerPolicy,
    boxes: Sequence[BoxView],
    *,
    adapter: str,
    stream: bool,
    fallback_allowed: bool,
    now: float,
) -> Plan:
    """The plan for a request for ``adapter``; ``boxes`` of its fleet come in the order of preference.

    A box where its first token would come too late is passed over before it has waited there; where the policy has
    nothing else, waiting is better than an error. ``now`` is the monotonic time on which the boxes' breakers run, in
    seconds.
    """
    steps = policy.steps if fallback_allowed else ()
    budget_s = first_token_budget_s(policy, stream=stream)
    own: list[BoxView] = []
    in_ramp: list[BoxView] = []
    busy: list[BoxView] = []
    withheld: Reason | None = None
    last_resort: list[BoxView] = []
    for box in boxes:
        why_not = box.condition(adapter, now)
        if why_not is None and box.saturated(adapter, budget_s, now):
            why_not = Reason.BACKEND_SATURATED
            busy.append(box)
        if why_not is None:
            (in_ramp if box.has_its_share(now) else own).append(box)
            continue
        # A missing adapter says more than an open breaker, which says more than nothing.
        if withheld is None or why_not is Reason.ADAPTER_UNAVAILABLE:
            withheld = why_not
        # It may have loaded the adapter again since it said that it lacks it, and another 404 costs next to nothing.
        if why_not in (Reason.CIRCUIT_OPEN, Reason.ADAPTER_UNAVAILABLE) and box.fails_fast:
            last_resort.append(box)
    own += in_ramp
    if steps:
        last_resort = busy + last_resort
    else:
        own += busy
    return Plan(
        adapter=adapter,
        own=tuple(own[:MAX_OWN_ATTEMPTS]),
        withheld=withheld,
        steps=steps,
        boxes=tuple(boxes),
        last_resort=tuple(last_resort),
    )
