"""One request's way through its plan: a pure machine that takes outcomes and a clock and gives the next attempt.

Order: the own adapter on one box after the other, then the policy's fallback steps, then, where all failed, the boxes
that were not asked yet, whatever the limit on attempts and the retry budget say, then boxes and then providers whose
breaker is open but which fail fast. All share the policy's ``deadline``; the own adapter leaves time in hand for the
fallback, and each step for those behind it.

A degradation may also be planned. By order (``forced``) the steps come first, and the own adapter is what is left where
none of them answers. As a drill one step is tried before all else, and where it fails all goes its usual way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.dataplane.candidate import Attempt, ProvidersView, Unsuited, Wait, own_attempt
from gateway.dataplane.decide import MAX_OWN_ATTEMPTS, WAIT_SHARE, BoxView, Plan
from gateway.dataplane.fallback_way import FallbackWay
from gateway.dataplane.verdict import public_text, reason_of
from gateway.errors import NotAdmitted, Reason, UpstreamError
from gateway.fleet.blame import may_have_killed
from gateway.fleet.permit import Held
from gateway.policy.compiled import CustomerPolicy, StaticStep, Step

FALLBACK_RESERVE = 1 / 3
"""Share of the deadline that the own adapter leaves to the fallback, where there is one."""

MAX_CRASHES = 2
"""Boxes that one request may take down before it is kept from all others (case 9)."""

OtherVersion = Callable[[float], Plan | None]
"""The plan at a time for the next other version of the alias that was asked for; None: there is none left."""


class Journey:
    """The state of one request between its attempts.

    ``take_retry`` asks the retry budget; ``unsuited`` and ``static_suits`` say which steps can serve the request,
    ``providers`` which providers may be asked now. ``other_version`` is given where an alias has several: where a box
    lacks the one, the customer's own other one is better than another model. ``forced``: degraded by order. ``drill``:
    the step to try first.
    """

    __slots__ = (
        "_began",
        "_crashed",
        "_deadline",
        "_drill",
        "_drilling",
        "_fallback",
        "_first_reason",
        "_forced",
        "_kept",
        "_last",
        "_missing",
        "_now",
        "_other_version",
        "_own_index",
        "_own_left",
        "_own_over",
        "_own_until",
        "_permit",
        "_plain",
        "_plan",
        "_policy",
        "_steps_first",
        "_take_retry",
        "started",
        "tried",
    )

    def __init__(
        self,
        plan: Plan,
        policy: CustomerPolicy,
        *,
        stream: bool,
        now: float,
        take_retry: Callable[[float], bool],
        unsuited: Unsuited,
        static_suits: Callable[[StaticStep], bool],
        providers: ProvidersView,
        other_version: OtherVersion | None = None,
        forced: bool = False,
        drill: Step | None = None,
    ) -> None:
        self._plan = plan
        self._policy = policy
        self._plain = not stream
        self._permit: Held | None = None
        self._deadline = now + policy.deadline_s
        self._forced = self._steps_first = forced
        self._drill = drill
        self._drilling = False
        self._begin_own(now)
        self._take_retry = take_retry
        self._other_version = other_version
        self._missing = False
        self._own_left = MAX_OWN_ATTEMPTS
        self._now = now
        self._crashed = 0
        self._own_over = False
        self._first_reason: Reason | None = None
        self.started = 0
        self.tried: list[str] = []
        self._fallback = FallbackWay(
            plan.steps,
            plan.boxes,
            unsuited=unsuited,
            static_suits=static_suits,
            providers=providers,
            tried=self.tried,
        )
        self._own_index = 0
        self._last: list[Attempt] | None = None
        self._kept: Attempt | Wait | None = None

    @property
    def reason(self) -> Reason:
        """Why the own adapter does not answer: its first failure, or why it was not asked."""
        return self._first_reason or self._plan.withheld or Reason.BACKEND_DOWN

    def next(self, now: float) -> Attempt | Wait | None:
        """The next attempt, or what to wait for before it, or None when nothing is left to try, or no time."""
        self._now = now
        while (candidate := self._kept or self._next_candidate()) is not None:
            self._kept = None
            if isinstance(candidate, Wait):
                return candidate
            until = self._limit(candidate, now)
            # Fixed text costs no time: it is still given when the time is over.
            if until > now or candidate.kind == "static":
                return self._start(candidate, until)
        return None

    def beside(self, first: Attempt, now: float) -> Attempt | None:
        """The next attempt while ``first``, at the own adapter, is still silent; None where nothing is to run beside.

        What is to be waited for or takes no time of its own is kept (``has_kept``) for :meth:`next`.
        """
        self._now = now
        self._first_reason = self._first_reason or Reason.TTFT_BUDGET
        if first.box is not None:
            self._fallback.failed.add(first.box.name)
        candidate = self._kept or self._next_candidate()
        if candidate is None:
            return None
        if isinstance(candidate, Wait) or candidate.kind == "static" or candidate.forced or candidate.extra:
            self._kept = candidate
            return None
        return self._start(candidate, until) if (until := self._limit(candidate, now)) > now else None

    @property
    def has_kept(self) -> bool:
        """Whether :meth:`beside` has found what is not to run beside another."""
        return self._kept is not None

    @property
    def own_until(self) -> float:
        """Monotonic time by which the own adapter has to have shown something, whoever is asked beside it."""
        return self._own_until

    def waited(self, box: BoxView | None, permit: Held | None = None) -> None:
        """A :class:`Wait` is over: ``box`` let the request in with ``permit``, or None did in time."""
        self._plan.waited(box)
        self._permit = permit

    def failed(self, attempt: Attempt, error: UpstreamError) -> None:
        """``attempt`` ended with ``error``, before anything was committed."""
        if isinstance(error, NotAdmitted):
            self.started -= 1
        if not isinstance(error, NotAdmitted) or attempt.kind == "provider":
            self.tried.append(f"{attempt.served_by}: {public_text(error)}")
        if attempt.kind == "own" and self._first_reason is None:
            self._first_reason = reason_of(error)
        if attempt.box is not None:
            if reason_of(error) is not Reason.ADAPTER_UNAVAILABLE:
                self._fallback.failed.add(attempt.box.name)
            elif attempt.kind == "own":
                self._missing = True
            if may_have_killed(error):
                self._crashed += 1

    def _begin_own(self, now: float) -> None:
        """The own adapter's time begins at ``now``."""
        self._began = now
        # Where a fallback is behind it, that gets a share of the deadline that no slow box can eat up.
        reserved = self._plan.steps and not self._forced
        latest = self._deadline - (self._policy.deadline_s * FALLBACK_RESERVE if reserved else 0.0)
        self._own_until = min(latest, now + self._policy.plain_budget_s) if self._plain else latest

    def _start(self, candidate: Attempt, until: float) -> Attempt:
        self.started += 1
        candidate.number = self.started
        candidate.until = until
        if candidate.kind != "own" and candidate.reason is None:
            candidate.reason = self.reason
        return candidate

    def _limit(self, candidate: Attempt, now: float) -> float:
        """Until when ``candidate`` may take, as a monotonic time."""
        if candidate.kind == "static":
            return self._deadline
        if candidate.reason is Reason.DRILL:
            # As long as one box would get: who is part of a drill is not to wait for it.
            budget_s = self._policy.plain_budget_s / 2 if self._plain else self._policy.ttft_budget_s
            return min(self._deadline, now + budget_s)
        if candidate.extra and not self._more_behind(candidate):
            return self._deadline
        if candidate.kind == "own" and not candidate.forced and not candidate.extra:
            if self._plain:
                return now + (self._own_until - now) / 2
            plan = self._plan
            if (
                not self._fallback.is_left
                and not self._kept_for_versions
                and self._own_index >= len(plan.own)
                and not plan.look_on(now)
                and not plan.left_over(self._own_index, now)[0]
            ):
                # Nothing stands behind it, so that giving it up early would gain nobody anything.
                return self._own_until
            budget_s = self._policy.ttft_budget_s
            if candidate.permit is not None and now < self._began + budget_s:
                # It waited for room, which was of the same budget.
                return min(self._own_until, self._began + budget_s)
            return min(self._own_until, now + budget_s)
        last = self._deadline if not self._more_behind(candidate) else now + (self._deadline - now) / 2
        # A box that shows nothing within the budget is not worth the rest of the deadline, whatever it is asked for.
        return last if candidate.kind == "provider" or self._plain else min(last, now + self._policy.ttft_budget_s)

    def _more_behind(self, candidate: Attempt) -> bool:
        """Whether something else that needs time may come after this candidate."""
        if candidate.extra:
            return bool(self._last) or self._fallback.providers_left
        if candidate.box is not None:
            return True
        if candidate.forced:
            return self._fallback.providers_left
        if self._forced:
            return bool(self._plan.boxes)
        return self._fallback.takes_time_behind(candidate)

    # Each part of the plan is looked at when the one before has failed, so that it sees the state of then. A generator
    # would say this more shortly, and would leave a cycle behind every request: itself, held by what it holds.

    def _next_candidate(self) -> Attempt | Wait | None:
        if self._drill is not None:
            step, self._drill = self._drill, None
            if (attempt := self._fallback.out_of_turn(step, self._now)) is not None:
                attempt.reason = Reason.DRILL
                self._drilling = True
                return attempt
        if self._drilling:
            self._drilling = False
            self._begin_own(self._now)
        if self._steps_first:
            if (attempt := self._next_step()) is not None:
                attempt.reason = Reason.FORCED
                return attempt
            self._steps_first = False
            self._begin_own(self._now)
        return (
            self._next_own()
            or self._next_version()
            or self._next_step()
            or self._next_last_box()
            or self._fallback.last_provider(self._now)
        )

    def _next_step(self) -> Attempt | None:
        return self._fallback.next(self._now, bases=self._crashed < MAX_CRASHES)

    def _next_own(self) -> Attempt | Wait | None:
        number = self._own_index
        plan = self._plan
        if self._own_over or self._crashed >= MAX_CRASHES or self._own_left <= self._kept_for_versions:
            return None
        if number >= len(plan.own) and not plan.look_on(self._now):
            if not plan.waits:
                return None
            fallback = self._fallback.stands(self._now)
            if plan.is_worth_waiting or not fallback:
                return self._wait(fallback)
            plan.waited(None)
            if not plan.look_on(self._now):
                return None
        # An attempt that the box's breaker turned away cost nobody anything: the next one is no retry yet.
        if number and self.started and not self._may_retry():
            self._own_over = True
            return None
        self._own_index = number + 1
        self._own_left -= 1
        attempt = own_attempt(plan.own[number], plan.adapter)
        if self._permit is not None:
            attempt.permit, self._permit = self._permit, None
        return attempt

    @property
    def _kept_for_versions(self) -> int:
        """Attempts that are left to other versions: one, once a box is known to lack the first."""
        return 1 if self._missing and self._other_version is not None else 0

    def _next_version(self) -> Attempt | Wait | None:
        other = self._other_version
        while other is not None and self._own_left:
            if not self._missing and self._plan.withheld is not Reason.ADAPTER_UNAVAILABLE:
                return None
            plan = other(self._now)
            if plan is None:
                self._other_version = None
                return None
            self._first_reason = self.reason
            self._plan = plan
            # As a fallback step would be, it is not charged to the retry budget.
            self._missing = self._own_over = False
            self._own_index = 0
            self._last = None
            if (candidate := self._next_own()) is not None:
                return candidate
        return None

    def _wait(self, fallback: bool) -> Wait:
        adapter, boxes, budget_s = self._plan.adapter, self._plan.boxes, self._plan.budget_s
        if fallback:
            return Wait(adapter, boxes, budget_s, min(self._began + WAIT_SHARE * budget_s, self._own_until))
        # Better late than an error; and who waits longest is who has the lowest priority.
        return Wait(adapter, boxes, math.inf, (self._began + self._own_until) / 2)

    def _next_last_box(self) -> Attempt | None:
        plan, last = self._plan, self._last
        if last is None:
            well, shut = plan.left_over(self._own_index, self._now)
            last = self._last = [own_attempt(box, plan.adapter, extra=True) for box in well]
            last += [own_attempt(box, plan.adapter, forced=True) for box in shut]
        while last and self._crashed < MAX_CRASHES:
            attempt = last.pop(0)
            # A `base` step may have failed there meanwhile.
            if not attempt.extra or attempt.box is None or attempt.box.name not in self._fallback.failed:
                return attempt
        return None

    def _may_retry(self) -> bool:
        if self._now >= self._own_until:
            return False
        if not self._take_retry(self._now):
            self.tried.append("no other box: the retry budget is spent")
            return False
        return True
