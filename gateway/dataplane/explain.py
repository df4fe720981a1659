"""The plan that would be made now, and every number that went into it: `decide` and `Journey`, looked at.

Pure, and it changes nothing: no permit is taken, no retry, no step of a hysteresis. Boxes are seen through a view that
answers as they would and remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.dataplane.candidate import Attempt, ProvidersView, Wait
from gateway.dataplane.decide import BoxView, Plan, decide, first_token_budget_s
from gateway.dataplane.journey import Journey
from gateway.errors import Reason, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.obstacle import in_words
from gateway.fleet.routing import Route
from gateway.policy.compiled import BaseStep, CustomerPolicy, ProviderStep, StaticStep
from gateway.upstream.provider_request import unsuited

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenBox:
    """A box as a decision sees it, which being seen does not change."""

    box: Box

    @property
    def name(self) -> str:
        """The box's name."""
        return self.box.name

    @property
    def fails_fast(self) -> bool:
        """Whether asking it costs no waiting."""
        return self.box.fails_fast

    def has_its_share(self, now: float) -> bool:
        """Whether others are to be asked first."""
        return self.box.has_its_share(now)

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        """Whether a first token would come too late."""
        return self.box.load.saturation(adapter, budget_s, now).saturated

    @property
    def load(self) -> BoxLoad:
        """What is in flight there."""
        return self.box.load

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        """None where the box may be asked."""
        return self.box.condition(adapter, now)


def explain(
    policy: CustomerPolicy,
    route: Route[Box],
    providers: ProvidersView,
    *,
    adapter: str,
    stream: bool,
    retries_left: int,
    now: float,
    others: Sequence[tuple[str, Route[Box]]] = (),
    forced: bool = False,
    withheld: Callable[[ProviderStep], str | None] = lambda step: None,
) -> Document:
    """What would become of a plain chat request for ``adapter`` at ``now``, as JSON can say it.

    ``route`` has its fleet's boxes in their order; ``retries_left``: what the retry budget allows; ``others``: what may
    stand in for the adapter, each with its route; ``forced``: the customer is degraded by order; ``withheld``: why a
    step is kept from being taken by its cost. Times are in seconds from now on.
    """
    plan = _plan_for(policy, adapter, route, stream=stream, now=now, planned=forced)
    waits = plan.waits
    plan.look_at_all(now)
    budget_s = first_token_budget_s(policy, stream=stream)

    def journey() -> Journey:
        left = iter(range(retries_left))
        return Journey(
            plan,
            policy,
            stream=stream,
            now=now,
            take_retry=lambda at: next(left, None) is not None,
            unsuited=lambda step: (
                unsuited(step, "chat", {"messages": [], "model": adapter, "stream": stream}) or withheld(step)
            ),
            static_suits=lambda step: True,
            providers=providers,
            other_version=_other_versions(policy, others, stream=stream) if others else None,
            forced=forced,
        )

    # A box that lacks the adapter leaves most to be tried: the base, and there too.
    way, skipped = journey(), list[str]()
    at_once = [attempt for attempt, _, _ in _walk(way, UpstreamStatus(404), now, slow=False, skipped=skipped)]
    slow_way = journey()
    late = {
        _place(attempt): (began - now, ended - now)
        for attempt, began, ended in _walk(slow_way, UpstreamTimeout("silent"), now, slow=True, skipped=[])
    }
    own_first = bool(at_once) and at_once[0].kind == "own"
    return {
        "customer": policy.name,
        "model": adapter,
        "stream": stream,
        "ttft_budget_s": policy.ttft_budget_s,
        "plain_budget_s": policy.plain_budget_s,
        "deadline_s": policy.deadline_s,
        "first_token_budget_s": budget_s,
        "retries_left": retries_left,
        "forced": forced,
        "drill_share": policy.drill_share,
        # Where it does, what follows is for when no room comes in time.
        "waits_for_room": waits,
        "degraded_reason": None if own_first or not at_once else str(at_once[0].reason),
        "homes": _homes(route, plan, budget_s, now),
        "boxes": [_box(view, route, plan, budget_s, now) for view in plan.boxes if isinstance(view, FrozenBox)],
        "attempts": [_attempt(attempt, late.get(_place(attempt)), adapter, now) for attempt in at_once],
        "left_out": [*_boxes_left_out(plan, budget_s, now), *skipped, *_steps_left_out(policy, at_once)],
    }


def _walk(
    way: Journey, error: UpstreamError, now: float, *, slow: bool, skipped: list[str]
) -> Iterator[tuple[Attempt, float, float]]:
    """Each attempt with its beginning and end, when all fail: at once, or (``slow``) when their time is over."""
    seen = 0
    while (attempt := way.next(now)) is not None:
        if isinstance(attempt, Wait):
            way.waited(None)
            continue
        skipped += way.tried[seen:]
        ends = attempt.until if slow and attempt.kind != "static" else now
        yield attempt, now, ends
        if attempt.kind == "static":
            return  # it cannot fail
        now = ends
        way.failed(attempt, error)
        seen = len(way.tried)
    skipped += way.tried[seen:]


def _plan_for(
    policy: CustomerPolicy, adapter: str, route: Route[Box], *, stream: bool, now: float, planned: bool = False
) -> Plan:
    views = [FrozenBox(box) for box in route.boxes]
    return decide(policy, views, adapter=adapter, stream=stream, fallback_allowed=True, now=now, planned=planned)


def _other_versions(
    policy: CustomerPolicy, others: Sequence[tuple[str, Route[Box]]], *, stream: bool
) -> Callable[[float], Plan | None]:
    left = iter(others)

    def next_plan(now: float) -> Plan | None:
        found = next(left, None)
        return None if found is None else _plan_for(policy, *found, stream=stream, now=now)

    return next_plan


def _place(attempt: Attempt) -> tuple[str, str | None, bool]:
    """What tells it from all other attempts of a plan."""
    return attempt.served_by, attempt.adapter, attempt.forced


def _attempt(attempt: Attempt, late: tuple[float, float] | None, adapter: str, now: float) -> Document:
    notes = []
    if attempt.adapter not in (None, adapter):
        notes.append(f"{attempt.adapter} stands in, only where a box lacks {adapter}")
    if attempt.extra:
        notes.append("beyond the limits on attempts: as all else has failed")
    if attempt.forced:
        notes.append("last resort: asked although it was passed over, as all else has failed")
    if attempt.kind == "base":
        notes.append("only if the box has not failed otherwise than by lacking the adapter")
    if isinstance(attempt.step, ProviderStep) and attempt.step.provider.unavailable is not None:
        notes.append(f"will fail at once: {attempt.step.provider.unavailable}")
    if isinstance(attempt.step, StaticStep) and not attempt.step.even_for_tools:
        notes.append("not for a request with tools or a JSON response_format")
    return {
        "number": attempt.number,
        "kind": attempt.kind,
        "served_by": attempt.served_by,
        "adapter": attempt.adapter,
        "forced": attempt.forced,
        # What it gets where all before it fail at once, and when it runs where each takes all of its time; None where
        # it is not reached then.
        "limit_s": None if attempt.kind == "static" else round(attempt.until - now, 3),
        "at_the_latest_s": None if late is None else [round(time_s, 3) for time_s in late],
        "notes": notes,
    }


def _homes(route: Route[Box], plan: Plan, budget_s: float, now: float) -> Document:
    first = plan.own[0].name if plan.own else None
    return {
        "placed_by": "rates" if route.measured else "rendezvous",
        "boxes": [box.name for box in route.homes],
        "first": first,
        "why_first": None if first is None else _why_first(first, route, plan, budget_s, now),
    }


def _why_first(first: str, route: Route[Box], plan: Plan, budget_s: float, now: float) -> str | None:
    """In words, why ``first`` is asked before the home that is asked first by rights; None where it is that one."""
    home = next(iter(route.homes), None)
    if home is None or home.name == first:
        return None
    by_rights = route.boxes[0]
    if by_rights.name != first:
        why_not = _why_not(by_rights, plan.adapter, budget_s, now) or "in its ramp, it has its share for now"
        return f"{by_rights.name} comes before it, but: {why_not}"
    return f"{first} holds the adapter in a slot and is less busy than {home.name}, which does not hold it"


def _box(view: FrozenBox, route: Route[Box], plan: Plan, budget_s: float, now: float) -> Document:
    box, load, adapter = view.box, view.box.load, plan.adapter
    estimate = load.estimate(adapter, now)
    saturation = load.saturation(adapter, budget_s, now)
    state = box.breaker.state(now)
    condition = box.condition(adapter, now)
    return {
        "name": box.name,
        "role": _role(view, plan),
        "is_home": box in route.homes,
        "condition": None if condition is None else str(condition),
        "why_not": _why_not(box, adapter, budget_s, now),
        "unavailable": box.spec.unavailable,
        "breaker": {"state": state, "retry_in_s": None if state == "closed" else _until(box.breaker.retry_at, now)},
        "fails_fast": box.fails_fast,
        "adapter": _adapter(box, adapter, now),
        "drained": box.duty.drained,
        "in_ramp": box.duty.in_ramp(now),
        "has_its_share": box.has_its_share(now),
        "in_flight": {
            "total": box.in_flight,
            "silent": load.attempts.silent,
            "by_adapter": dict(sorted(load.attempts.adapters.items())),
            "base": load.attempts.of(None),
        },
        "concurrency_limit": load.limit.limit,
        "estimate": {
            "ttft_s": _rounded(estimate.ttft_s),
            "parts": {name: _rounded(value) for name, value in estimate.parts},
        },
        "budget_s": budget_s,
        "saturated": view.saturated(adapter, budget_s, now),
        "over_limit": not load.limit.admits(box.in_flight),
        "saturated_for_s": _rounded(None if saturation.since_s is None else now - saturation.since_s)
        if saturation.saturated
        else None,
        "slots": {"of": load.slots.slots, "held": list(load.slots.held), "holds_it": adapter in load.slots},
    }


def _role(view: BoxView, plan: Plan) -> str:
    if view in plan.own:
        return "own"
    return "last_resort" if view in plan.last_resort else "left_out"


def _boxes_left_out(plan: Plan, budget_s: float, now: float) -> Iterator[str]:
    for view in plan.boxes:
        if not isinstance(view, FrozenBox) or _role(view, plan) == "own":
            continue
        why = _why_not(view.box, plan.adapter, budget_s, now)
        if why is None:
            yield f"box:{view.name}: {len(plan.own)} boxes come before it, and no more are asked"
        elif _role(view, plan) == "last_resort":
            yield f"box:{view.name}: only as the last resort: {why}"
        else:
            yield f"box:{view.name}: {why}"


def _steps_left_out(policy: CustomerPolicy, attempts: Sequence[Attempt]) -> Iterator[str]:
    if not policy.steps:
        yield "fallback: the policy has no step that could be taken"
    if not policy.hosted_allowed:
        yield "providers: hosted.allowed is false, so that every token stays on your own boxes"
    if any(isinstance(step, BaseStep) for step in policy.steps) and all(one.kind != "base" for one in attempts):
        yield "base: no box may be asked for it now"
    static = next((i for i, step in enumerate(policy.steps) if isinstance(step, StaticStep)), len(policy.steps))
    if (behind := len(policy.steps) - static - 1) > 0:
        yield f"{behind} step{'s' if behind > 1 else ''} behind static, which cannot fail"


def _why_not(box: Box, adapter: str, budget_s: float, now: float) -> str | None:
    """In words, why the box is not simply asked; None where it is."""
    if (obstacle := box.obstacle(adapter, now)) is not None:
        return in_words(obstacle, box, adapter, now)
    load = box.load
    if not load.limit.admits(box.in_flight):
        return f"{box.in_flight} are in flight there, and its limit is {load.limit.limit}"
    if not load.saturation(adapter, budget_s, now).saturated:
        if not load.has_slot(adapter):
            return f"it has no free slot: adapters in flight there need all {load.slots.slots}, and one more would wait"
        if not load.has_room(adapter):
            return f"{load.attempts.silent} streams are silent there, as many as may be"
        return None
    ttft_s = load.estimate(adapter, now).ttft_s
    if ttft_s is not None and ttft_s > budget_s:
        return f"its first token is expected after {ttft_s:.2f} s, and the budget is {budget_s:g} s"
    return f"it was over the budget of {budget_s:g} s, and has not been well below it for long enough"


def _adapter(box: Box, adapter: str, now: float) -> Document:
    pairs = box.pairs
    found_by_state = {"missing": pairs.missing(), "failing": pairs.failing(), "suspected": pairs.suspected()}
    for name, found in found_by_state.items():
        if adapter in found:
            return {"state": name, "retry_in_s": _until(found[adapter], now)}
    return {"state": "ok", "retry_in_s": None}


def _until(at: float, now: float) -> float:
    return round(max(0.0, at - now), 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
