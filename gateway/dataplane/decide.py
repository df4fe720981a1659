"""`decide`: the plan for one request, from the policy, the fleet as it is seen now, and the request.

Pure: it reads no socket and no clock, so that the gateway, `failsoft explain`, the simulator and the property tests
run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Plan:
    """The ordered attempts for one request.

    ``own``: boxes to ask for the customer's adapter. ``withheld``: why a box was left out, where one was; it is the
    answer's reason if no box is left to ask. ``steps``: the fallback. ``boxes``: all boxes of the fleet in the order of
    preference, for a ``base`` step. ``last_resort``: boxes that are too busy, whose breaker is open or that lacked the
    adapter, asked only when all else has failed: as long as one target may be healthy, no 5xx is due.

    A box is looked at when those before it are used up: nearly every request is answered by the first. So ``own``
    grows, and the other findings are whole when ``look_on`` has said that nothing is left.
    """

    __slots__ = (
        "_budget_s",
        "_busy",
        "_in_ramp",
        "_looked_at",
        "adapter",
        "boxes",
        "last_resort",
        "own",
        "steps",
        "withheld",
    )

    def __init__(self, adapter: str, boxes: Sequence[BoxView], steps: tuple[Step, ...], budget_s: float) -> None:
        self.adapter = adapter
        self.boxes = boxes
        self.steps = steps
        self.own: list[BoxView] = []
        self.withheld: Reason | None = None
        # Tuples, as nearly always nothing gets in.
        self.last_resort: tuple[BoxView, ...] = ()
        self._budget_s = budget_s
        self._in_ramp: tuple[BoxView, ...] = ()
        self._busy: tuple[BoxView, ...] = ()
        self._looked_at = 0

    def look_on(self, now: float) -> bool:
        """Find the next box for ``own``, as boxes are at ``now``; False where there is none."""
        boxes = self.boxes
        if self._looked_at > len(boxes) or len(self.own) >= MAX_OWN_ATTEMPTS:
            return False
        while self._looked_at < len(boxes):
            box = boxes[self._looked_at]
            self._looked_at += 1
            if self._suits(box, now):
                self.own.append(box)
                return True
        return self._last_ones()

    def look_at_all(self, now: float) -> None:
        """Complete ``own``, ``withheld`` and ``last_resort``."""
        while self.look_on(now):
            pass

    def _suits(self, box: BoxView, now: float) -> bool:
        why_not = box.condition(self.adapter, now)
        if why_not is None and box.saturated(self.adapter, self._budget_s, now):
            why_not = Reason.BACKEND_SATURATED
            self._busy += (box,)
        if why_not is None:
            if not box.has_its_share(now):
                return True
            self._in_ramp += (box,)
            return False
        # A missing adapter says more than an open breaker, which says more than nothing.
        if self.withheld is None or why_not is Reason.ADAPTER_UNAVAILABLE:
            self.withheld = why_not
        # It may have loaded the adapter again since it said that it lacks it, and another 404 costs next to nothing.
        if why_not in (Reason.CIRCUIT_OPEN, Reason.ADAPTER_UNAVAILABLE) and box.fails_fast:
            self.last_resort += (box,)
        return False

    def _last_ones(self) -> bool:
        """All were looked at: what is asked behind those that simply suit."""
        before = len(self.own)
        self._looked_at += 1
        self.own += self._in_ramp
        if self.steps:
            self.last_resort = self._busy + self.last_resort
        else:
            self.own += self._busy
        del self.own[MAX_OWN_ATTEMPTS:]
        return len(self.own) > before


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
    plan = Plan(adapter, boxes, steps, first_token_budget_s(policy, stream=stream))
    plan.look_on(now)
    return plan
