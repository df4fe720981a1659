"""`decide`: the plan for one request, from the policy, the fleet as it is seen now, and the request.

Pure: it reads no socket and no clock, so that the gateway, `failsoft explain`, the simulator and the property tests
run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.errors import Reason
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.routing import Fit, fit
from gateway.fleet.waiting_line import LOOKED_AT
from gateway.policy.compiled import CustomerPolicy, Step

MAX_OWN_ATTEMPTS = 3
"""Attempts at the own adapter before the fallback (invariant I5)."""


_WORTH_A_TRY = (Reason.CIRCUIT_OPEN, Reason.ADAPTER_UNAVAILABLE)
"""What does not keep a box from being asked, where all else has failed."""


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

    @property
    def load(self) -> BoxLoad:
        """What is in flight there."""


class Plan:
    """The ordered attempts for one request.

    ``own``: boxes to ask for the customer's adapter. ``withheld``: why a box was left out, where one was; it is the
    answer's reason if no box is left to ask. ``steps``: the fallback. ``boxes``: all boxes of the fleet in the order of
    preference, for a ``base`` step. ``waits``: no box has room now, or would be in time, and ``waited`` has to be told
    what became of that. ``last_resort``: boxes that are too busy, whose breaker is open or that lacked the adapter,
    asked only when all else has failed: as long as one target may be healthy, no 5xx is due. ``yields``: not at a box
    that is too busy, as others matter more.

    A box is looked at when those before it are used up: nearly every request is answered by the first. So ``own``
    grows, and the other findings are whole when ``look_on`` has said that nothing is left.
    """

    __slots__ = (
        "_astray",
        "_busy",
        "_full",
        "_has_waited",
        "_in_ramp",
        "_looked_at",
        "adapter",
        "boxes",
        "budget_s",
        "last_resort",
        "own",
        "steps",
        "waits",
        "withheld",
        "yields",
    )

    def __init__(
        self, adapter: str, boxes: Sequence[BoxView], steps: tuple[Step, ...], budget_s: float, *, yields: bool = False
    ) -> None:
        self.adapter = adapter
        self.boxes = boxes
        self.steps = steps
        self.own: list[BoxView] = []
        self.withheld: Reason | None = None
        # Tuples, as nearly always nothing gets in.
        self.last_resort: tuple[BoxView, ...] = ()
        self.budget_s = budget_s
        self.yields = yields
        self.waits = self._has_waited = False
        self._astray: tuple[BoxView, ...] = ()
        self._full: tuple[BoxView, ...] = ()
        self._in_ramp: tuple[BoxView, ...] = ()
        self._busy: tuple[BoxView, ...] = ()
        self._looked_at = 0

    def look_on(self, now: float) -> bool:
        """Find the next box for ``own``, as boxes are at ``now``; False: there is none, or (``waits``) none yet."""
        boxes = self.boxes
        if self.waits or self._looked_at > len(boxes) or len(self.own) >= MAX_OWN_ATTEMPTS:
            return False
        while self._looked_at < len(boxes):
            box = boxes[self._looked_at]
            self._looked_at += 1
            if box in self.own:
                continue  # it was waited for
            if self._suits(box, now):
                self.own.append(box)
                return True
            if self._may_wait and len(self._full) + len(self._astray) >= LOOKED_AT:
                break  # of fifty boxes, no more are looked at before one of these was waited for
        return self._last_ones()

    @property
    def _may_wait(self) -> bool:
        return not self.own and not self._has_waited

    @property
    def is_worth_waiting(self) -> bool:
        """Whether room may come in time: a box is full, but its first token would not come too late."""
        return bool(self._full)

    def look_at_all(self, now: float) -> None:
        """Complete ``own``, ``withheld`` and ``last_resort``."""
        while self.look_on(now) or self.waits:
            if self.waits:
                self.waited(None)

    def left_over(self, asked: int, now: float) -> tuple[list[BoxView], list[BoxView]]:
        """What was not asked of the boxes, where only the first ``asked`` of ``own`` were: those that are well, the
        crowded ones last, and those that were passed over but fail fast."""
        self.look_at_all(now)
        seen = (*self.own[:asked], *self.last_resort)
        well, crowded, shut = list[BoxView](), list[BoxView](), list[BoxView]()
        for box in self.boxes:
            if box in seen:
                continue
            why_not = box.condition(self.adapter, now)
            if why_not in _WORTH_A_TRY and box.fails_fast:
                shut.append(box)
            elif why_not is None:
                busy = box.saturated(self.adapter, self.budget_s, now)
                (crowded if busy or fit(box, self.adapter, home_is_full=False) is Fit.FULL else well).append(box)
        return well if self.yields else well + crowded, [*self.last_resort, *shut]

    def waited(self, box: BoxView | None) -> None:
        """The wait for room is over: ``box`` has it, or none has."""
        self.waits = False
        self._has_waited = True
        # What was found before is old by now: boxes may have died meanwhile, or have come free.
        self._looked_at = 0
        self.withheld = None
        self.last_resort = self._astray = self._full = self._in_ramp = self._busy = ()
        if box is not None:
            self.own.append(box)

    def _suits(self, box: BoxView, now: float) -> bool:
        why_not = box.condition(self.adapter, now)
        if why_not is None and box.saturated(self.adapter, self.budget_s, now):
            why_not = Reason.BACKEND_SATURATED
            self._busy += (box,)
        if why_not is None:
            found = fit(box, self.adapter, home_is_full=bool(self._full))
            if found is not Fit.FULL:
                if box.has_its_share(now):
                    self._in_ramp += (box,)
                elif found is Fit.ROOM:
                    return True
                else:
                    self._astray += (box,)
                return False
            why_not = Reason.BACKEND_SATURATED
            self._full += (box,)
        # A missing adapter says more than an open breaker, which says more than nothing.
        if self.withheld is None or why_not is Reason.ADAPTER_UNAVAILABLE:
            self.withheld = why_not
        # It may have loaded the adapter again since it said that it lacks it, and another 404 costs next to nothing.
        if why_not in _WORTH_A_TRY and box.fails_fast:
            self.last_resort += (box,)
        return False

    def _last_ones(self) -> bool:
        """What is asked behind those that simply suit, where it is not time to wait first."""
        if self._may_wait and (self._full or self._busy):
            self.waits = True
            return False
        self._looked_at += 1
        before = len(self.own)
        self.own += self._astray + self._in_ramp
        # Who has a low priority is not sent to wait in a box's own queue, where nobody could be let past.
        crowded = () if self.yields else self._full + self._busy
        if self.steps:
            self.last_resort = crowded + self.last_resort
        else:
            self.own += crowded
        del self.own[MAX_OWN_ATTEMPTS:]
        return len(self.own) > before


WAIT_SHARE = 0.9
"""Of the budget that a request may wait for room: what is left is for its first token."""


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
    planned: bool = False,
) -> Plan:
    """The plan for a request for ``adapter``; ``boxes`` of its fleet come in the order of preference.

    A box where its first token would come too late is passed over before it has waited there; where the policy has
    nothing else, waiting is better than an error. ``now`` is the monotonic time on which the boxes' breakers run, in
    seconds. ``planned``: something comes before the own adapter, so that boxes are looked at when its turn comes.
    """
    steps = policy.steps if fallback_allowed else ()
    budget_s = first_token_budget_s(policy, stream=stream)
    plan = Plan(adapter, boxes, steps, budget_s, yields=policy.priority == "low")
    if not planned:
        plan.look_on(now)
    return plan
