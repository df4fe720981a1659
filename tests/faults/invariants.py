"""The judge of a history: what of I1, I2, I3, I4 and I6 it breaks. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.dataplane.continuation import MAX_BREAKS
from gateway.dataplane.relay import GOES_ON
from tests.faults.cast import BASE, EVERYBODY, GENERIC_MODEL, PROVIDER, SECRETS
from tests.faults.history import Arrival, Asked, History

REASONS: Final = frozenset(
    {
        "backend_down",
        "backend_saturated",
        "adapter_unavailable",
        "ttft_budget",
        "circuit_open",
        "forced",
        "drill",
        "stream_broken",
    }
)
"""The closed list of the design."""

CANCELLED_WITHIN_S: Final = 1.0
"""I4."""

SLACK_S: Final = 1.5
"""What may come on top of any bound beside a loaded machine, which is measured: see ``House.slack_s``."""

RETRY_AFTER_MAX_S: Final = 30


@dataclass(frozen=True, slots=True)
class Weather:
    """What was broken, and how, for as long as the history lasts.

    ``boxes``: those that fail; ``adapters``: only for these, if any are named. ``provider``: whether it fails too.
    ``reasons``: what a degraded answer may give as its reason. ``breaks_streams``: whether the fault comes after the
    first content, so that a stream may end in an error event. ``blind``: targets whose journal says nothing of when
    they were left, as their process stood still. ``static_suits``: whether fixed text may be the answer, which it may
    not where a tool is to be called.
    """

    boxes: frozenset[str] = frozenset()
    adapters: frozenset[str] | None = None
    provider: bool = False
    reasons: frozenset[str] = frozenset()
    breaks_streams: bool = False
    blind: frozenset[str] = frozenset()
    static_suits: bool = True
    all_boxes: frozenset[str] = frozenset({"box-a", "box-b"})

    def own_is_healthy(self, asked: Asked) -> bool:
        """Whether some box can answer this request with its own adapter."""
        return bool(self.all_boxes - self.boxes) or (self.adapters is not None and asked.adapter not in self.adapters)

    def owes_an_answer(self, asked: Asked) -> bool:
        """Whether some target is healthy that the customer's policy allows."""
        base_is_healthy = bool(self.all_boxes - self.boxes) or self.adapters is not None
        steps = asked.customer.steps
        return (
            self.own_is_healthy(asked)
            or ("base" in steps and base_is_healthy)
            or ("provider" in steps and not self.provider)
            or ("static" in steps and self.static_suits)
        )


def complaints(history: History, weather: Weather) -> list[str]:
    """Everything that is wrong with ``history``, in words; empty where all invariants hold."""
    found: list[str] = []
    for asked in history.asked:
        about = [
            *_availability(asked, weather),
            *_wholeness(asked, weather),
            *_headers(asked),
            *_marks(asked, weather),
            *_attempts(asked, history.arrivals(asked.question)),
            *_cancellation(asked, history.arrivals(asked.question), weather, SLACK_S + history.lag_s),
        ]
        found += [f"{what} — {asked}" for what in about]
    return [*found, *_isolation(history)]


def _availability(asked: Asked, weather: Weather) -> Iterator[str]:
    """I1: no 5xx, nor no answer at all, while anything healthy is allowed."""
    recording = asked.recording
    if recording.end == "left":
        return
    if recording.status is None or recording.end not in ("complete", "truncated"):
        yield f"I1: no whole answer: {recording.end}"
    elif recording.status != 200 and weather.owes_an_answer(asked):
        yield f"I1: status {recording.status} though something healthy was allowed: {recording.body[:300]!r}"
    elif recording.status == 503:
        if not 0 < int(recording.headers.get("retry-after", "0")) <= RETRY_AFTER_MAX_S:
            yield f"the 503's Retry-After: {recording.headers.get('retry-after')}"
        if recording.headers.get("x-should-retry") != "false":
            yield f"the 503's x-should-retry: {recording.headers.get('x-should-retry')}"


def _wholeness(asked: Asked, weather: Weather) -> Iterator[str]:
    """I2 and I3, and that the words are those of whom the headers name."""
    if asked.recording.end == "left":
        return
    seen = asked.seen
    yield from (f"I2/I3: {violation}" for violation in seen.violations)
    if asked.recording.status != 200:
        return
    if seen.error is not None and not (asked.stream and weather.breaks_streams):
        yield f"I2: a stream that nothing broke ended in an error: {seen.error}"
    kind, _, name = asked.served_by.partition(":")
    wanted = {"box": asked.adapter, "base": BASE, "provider": "generic"}.get(kind)
    # A stream that broke behind the name of a tool has no words yet.
    begun = seen.error is None or seen.answered_by is not None
    if wanted is not None and begun and seen.answered_by != wanted:
        yield f"the words are {seen.answered_by}'s"
    if kind not in ("box", "base", "provider", "static") or (kind == "provider" and name != PROVIDER):
        yield f"served by {asked.served_by!r}"
    if kind not in ("box", *asked.customer.steps):
        yield f"I6: served by {asked.served_by}, which its policy does not have"


def _headers(asked: Asked) -> Iterator[str]:
    """What every answer's headers have."""
    headers = asked.recording.headers
    if asked.recording.status is None:
        return
    if not headers.get("x-request-id"):
        yield "no x-request-id"
    for name in ("x-failsoft-attempts", "x-failsoft-policy"):
        if not headers.get(name, "").isdigit():
            yield f"{name}: {headers.get(name)!r}"
    if asked.recording.status != 200 and asked.served_by != "none":
        yield f"an error served by {asked.served_by!r}"


def _marks(asked: Asked, weather: Weather) -> Iterator[str]:
    """Degraded is what does not come from the own adapter, and headers and body say the same of it."""
    if asked.recording.status != 200 or asked.recording.end == "left":
        return
    headers, seen = asked.recording.headers, asked.seen
    reason = asked.degraded
    kind = asked.served_by.partition(":")[0]
    if kind == "box":
        if reason is not None or seen.degraded is not None or "x-failsoft-model" in headers:
            yield f"the own adapter's answer is marked: {reason}, {seen.degraded}"
        if seen.model != asked.adapter:
            yield f"the own adapter's answer names {seen.model}"
        return
    if reason not in REASONS:
        yield f"reason {reason!r}"
    elif reason not in weather.reasons:
        yield f"I1/I6: degraded by {reason}, where {sorted(weather.reasons) or 'nothing'} could be the reason"
    model = {"base": BASE, "provider": GENERIC_MODEL, "static": "static"}.get(kind)
    expected = {
        "reason": reason,
        "requested_model": asked.adapter,
        "served_model": model,
        "served_by": asked.served_by,
    }
    if seen.degraded != expected:
        yield f"degraded in the body is {seen.degraded}, and has to be {expected}"
    if headers.get("x-failsoft-model") != model or seen.model != model:
        yield f"x-failsoft-model {headers.get('x-failsoft-model')!r}, model {seen.model!r}: both have to be {model}"


def _attempts(asked: Asked, arrivals: list[Arrival]) -> Iterator[str]:
    """No target is asked more often than the answer admits, and at most three boxes for the own adapter (I5)."""
    said = asked.recording.headers.get("x-failsoft-attempts", "")
    numbers = {arrival.attempt for arrival in arrivals}
    # Whoever goes on with a stream that broke comes when the head has said its number; and says that it comes.
    resumed = asked.recording.body.count(GOES_ON) if asked.stream else 0
    if resumed > MAX_BREAKS + 1:
        yield f"a stream broke {resumed} times, and went on"
    if said.isdigit() and asked.recording.end != "left" and len(numbers) > int(said) + resumed:
        yield f"{len(numbers)} attempts arrived, {said} were admitted to, and {resumed} went on with what had broken"
    own = {arrival.attempt for arrival in arrivals if arrival.model == asked.adapter}
    if len(own) > 3 + resumed:
        yield f"I5: {len(own)} attempts at the own adapter"
    asked_providers = {arrival.attempt for arrival in arrivals if arrival.target == PROVIDER}
    if len(asked_providers) > 1:
        yield f"the provider was asked {len(asked_providers)} times"


def _cancellation(asked: Asked, arrivals: list[Arrival], weather: Weather, slack_s: float) -> Iterator[str]:
    """I4: an attempt that lost is over soon after the next one began, or after the commit where they raced; the last
    one soon after the client's end.
    """
    committed = asked.recording.started + (asked.recording.head_s or asked.recording.ended_s)
    for arrival in arrivals:
        if arrival.target in weather.blind:
            continue
        later = [other.started for other in arrivals if other.attempt > arrival.attempt]
        lost = min(asked.ended, max(min(later), committed)) if later else asked.ended
        if arrival.ended is None:
            yield f"I4: attempt {arrival.attempt} at {arrival.target} still runs"
        elif arrival.ended > lost + CANCELLED_WITHIN_S + slack_s:
            yield f"I4: attempt {arrival.attempt} at {arrival.target} ended {arrival.ended - lost:.1f} s after it lost"


def _isolation(history: History) -> Iterator[str]:
    """I6: nobody's question reaches whom its policy forbids, nobody's adapter answers another, no key travels."""
    owners = {adapter: customer.name for customer in EVERYBODY for adapter in customer.adapters}
    for asked in history.asked:
        for arrival in history.arrivals(asked.question):
            if arrival.target == PROVIDER and "provider" not in asked.customer.steps:
                yield f"I6: the provider was asked — {asked}"
            owner = owners.get(arrival.model or "")
            if owner is not None and owner != asked.customer.name:
                yield f"I6: {arrival.target} was asked for {arrival.model} — {asked}"
            if arrival.model == BASE and "base" not in asked.customer.steps:
                yield f"I6: {arrival.target} was asked for the base — {asked}"
    for arrival in history.arrived:
        for secret in SECRETS:
            if secret in arrival.text:
                yield f"I6: {secret} travelled to {arrival.target}"
