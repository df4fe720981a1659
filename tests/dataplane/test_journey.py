"""A request's way through its plan: which target next, how long, and why the answer is degraded."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.decide import WAIT_SHARE, decide
from gateway.dataplane.journey import MAX_CRASHES, Attempt, Journey, Wait
from gateway.errors import (
    ConnectError,
    ConnectionLost,
    NotAdmitted,
    ProtocolError,
    Reason,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.box_load import BoxLoad
from gateway.policy.compiled import BaseStep, CustomerPolicy, FleetSpec, ProviderSpec, ProviderStep, StaticStep, Step

HOSTED = ProviderStep(ProviderSpec("hosted", "openai/gpt", None), "openai/gpt")
OTHER = ProviderStep(ProviderSpec("other", "openai/gpt", None), "openai/gpt")
STATIC = StaticStep("later")
ALL_STEPS: tuple[Step, ...] = (HOSTED, BaseStep(), STATIC)


@dataclass
class FakeBox:
    name: str
    down: Reason | None = None
    base_down: Reason | None = None
    fails_fast: bool = True
    in_ramp: bool = False
    ttft_s: float = 0.0
    asked: list[str | None] = field(default_factory=list)
    load: BoxLoad = field(default_factory=lambda: BoxLoad(8))

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        return self.base_down if adapter is None else self.down

    def has_its_share(self, now: float) -> bool:
        return self.in_ramp

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        return self.ttft_s > budget_s


@dataclass
class FakeProviders:
    """Providers by name that are not to be asked, each with the reason; ``slow``: not even as the last resort."""

    shut: dict[str, str] = field(default_factory=dict)
    slow: frozenset[str] = frozenset()

    def condition(self, provider: ProviderSpec, now: float) -> str | None:
        return self.shut.get(provider.name)

    def is_last_resort(self, provider: ProviderSpec, now: float) -> bool:
        return provider.name not in self.slow


def customer(*steps: Step, **durations: float) -> CustomerPolicy:
    times = {"ttft_budget_s": 2.0, "plain_budget_s": 30.0, "deadline_s": 60.0, "stall_timeout_s": 10.0} | durations
    return CustomerPolicy(
        name="acme",
        fleet=FleetSpec("main", "base", ()),
        adapters=frozenset({"acme_v3"}),
        steps=steps,
        on_broken_stream="error",
        **times,
    )


def journey(
    policy: CustomerPolicy,
    *boxes: FakeBox,
    stream: bool = True,
    take_retry: Callable[[float], bool] = lambda now: True,
    unsuited: Callable[[ProviderStep], str | None] = lambda step: None,
    static_suits: bool = True,
    fallback_allowed: bool = True,
    providers: FakeProviders | None = None,
) -> Journey:
    plan = decide(policy, boxes, adapter="acme_v3", stream=stream, fallback_allowed=fallback_allowed, now=0.0)
    return Journey(
        plan,
        policy,
        stream=stream,
        now=0.0,
        take_retry=take_retry,
        unsuited=unsuited,
        static_suits=lambda step: static_suits,
        providers=providers or FakeProviders(),
    )


def walk(way: Journey, error: UpstreamError, at: float = 0.0) -> list[Attempt]:
    """Every attempt, when each fails with ``error`` at once."""
    attempts = []
    while (attempt := way.next(at)) is not None:
        if isinstance(attempt, Wait):
            way.waited(None)
            continue
        attempts.append(attempt)
        way.failed(attempt, error)
    return attempts


def served_by(attempts: list[Attempt]) -> list[str]:
    return [attempt.served_by for attempt in attempts]


def test_boxes_first_then_the_steps_in_their_order() -> None:
    attempts = walk(journey(customer(*ALL_STEPS), FakeBox("a"), FakeBox("b")), ConnectError("refused"))
    assert served_by(attempts) == ["box:a", "box:b", "provider:hosted", "static"]
    assert [a.number for a in attempts] == [1, 2, 3, 4]


def test_base_is_asked_on_boxes_that_lack_only_the_adapter() -> None:
    attempts = walk(journey(customer(BaseStep()), FakeBox("a"), FakeBox("b")), UpstreamStatus(404))
    assert served_by(attempts) == ["box:a", "box:b", "base:a", "base:b"]
    assert attempts[-1].reason is Reason.ADAPTER_UNAVAILABLE


def test_base_is_not_asked_on_a_box_that_is_down() -> None:
    boxes = FakeBox("a", down=Reason.CIRCUIT_OPEN, base_down=Reason.CIRCUIT_OPEN, fails_fast=False), FakeBox("b")
    way = journey(customer(BaseStep()), *boxes)
    assert served_by(walk(way, UpstreamStatus(404))) == ["box:b", "base:b"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectError("refused"), Reason.BACKEND_DOWN),
        (ConnectionLost("reset"), Reason.BACKEND_DOWN),
        (ProtocolError("html"), Reason.BACKEND_DOWN),
        (UpstreamStatus(500), Reason.BACKEND_DOWN),
        (UpstreamStatus(503), Reason.BACKEND_DOWN),
        (UpstreamStatus(503, b"The engine is currently busy"), Reason.BACKEND_SATURATED),
        (UpstreamStatus(429), Reason.BACKEND_SATURATED),
        (UpstreamStatus(404), Reason.ADAPTER_UNAVAILABLE),
        (UpstreamTimeout("silence"), Reason.TTFT_BUDGET),
    ],
)
def test_the_reason_is_that_of_the_first_failure_of_the_own_adapter(error: UpstreamError, reason: Reason) -> None:
    way = journey(customer(HOSTED), FakeBox("a"), FakeBox("b"))
    first, second = way.next(0.0), None
    assert first is not None
    way.failed(first, error)
    second = way.next(0.0)
    assert second is not None
    way.failed(second, ConnectError("refused"))
    fallback = way.next(0.0)
    assert fallback is not None
    assert fallback.reason is reason


def test_without_a_box_to_ask_the_reason_says_why() -> None:
    open_box = FakeBox("a", down=Reason.CIRCUIT_OPEN)
    without = FakeBox("b", down=Reason.ADAPTER_UNAVAILABLE)
    first = journey(customer(HOSTED), open_box).next(0.0)
    assert first is not None
    assert first.reason is Reason.CIRCUIT_OPEN
    first = journey(customer(HOSTED), open_box, without).next(0.0)
    assert first is not None
    assert first.reason is Reason.ADAPTER_UNAVAILABLE


def test_a_box_in_its_ramp_is_asked_after_the_others_and_before_the_fallback() -> None:
    way = journey(customer(HOSTED), FakeBox("a", in_ramp=True), FakeBox("b"))
    served = [attempt.served_by for attempt in walk(way, ConnectError("refused"))]
    assert served == ["box:b", "box:a", "provider:hosted"]


def test_a_box_where_the_first_token_would_come_too_late_is_passed_over_before_it_has_waited() -> None:
    boxes = FakeBox("a", ttft_s=2.1), FakeBox("b", ttft_s=1.9)
    attempts = walk(journey(customer(HOSTED), *boxes), ConnectError("refused"))
    assert served_by(attempts) == ["box:b", "provider:hosted", "box:a"]
    attempts = walk(journey(customer(HOSTED), boxes[0]), ConnectError("refused"))
    assert served_by(attempts) == ["provider:hosted", "box:a"]
    assert attempts[0].reason is Reason.BACKEND_SATURATED
    attempts = walk(journey(customer(HOSTED, plain_budget_s=30.0), boxes[0], stream=False), ConnectError("refused"))
    assert served_by(attempts) == ["box:a", "provider:hosted"], "half of the plain budget is more than that"


def test_where_nothing_else_can_answer_a_busy_box_is_better_than_an_error() -> None:
    boxes = FakeBox("a", ttft_s=9.0), FakeBox("b", ttft_s=1.0)
    assert served_by(walk(journey(customer(), *boxes), ConnectError("refused"))) == ["box:b", "box:a"]
    way = journey(customer(HOSTED), boxes[0], fallback_allowed=False)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:a"]


def test_the_last_box_with_nothing_behind_it_has_all_the_time_there_is() -> None:
    way = journey(customer(ttft_budget_s=2.0, deadline_s=60.0), FakeBox("a"), FakeBox("b"))
    limits = [attempt.until for attempt in walk(way, UpstreamTimeout("silence"))]
    assert limits == [2.0, 60.0]
    way = journey(customer(HOSTED), FakeBox("a"), fallback_allowed=False)
    assert [attempt.until for attempt in walk(way, UpstreamTimeout("silence"))] == [60.0]
    way = journey(customer(STATIC), FakeBox("a"))
    assert next(attempt.until for attempt in walk(way, UpstreamTimeout("silence"))) == 2.0


def test_an_open_box_that_fails_fast_is_the_last_resort() -> None:
    way = journey(customer(HOSTED), FakeBox("a", down=Reason.CIRCUIT_OPEN))
    attempts = walk(way, ConnectError("refused"))
    assert served_by(attempts) == ["provider:hosted", "box:a"]
    assert attempts[-1].forced
    assert attempts[-1].reason is None


def test_a_silent_box_is_no_last_resort() -> None:
    way = journey(customer(HOSTED), FakeBox("a", down=Reason.CIRCUIT_OPEN, fails_fast=False))
    assert served_by(walk(way, ConnectError("refused"))) == ["provider:hosted"]


def test_fallback_never_leaves_only_the_own_adapter() -> None:
    way = journey(customer(*ALL_STEPS), FakeBox("a"), fallback_allowed=False)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:a"]


def test_at_most_three_attempts_before_the_fallback() -> None:
    attempts = walk(journey(customer(HOSTED), *[FakeBox(str(i)) for i in range(9)]), ConnectError("refused"))
    assert [a.kind for a in attempts][:4] == ["own"] * 3 + ["provider"]


def test_where_no_fallback_is_left_healthy_boxes_beyond_the_third_are_asked() -> None:
    five = [FakeBox(name) for name in "abcde"]
    assert served_by(walk(journey(customer(), *five), ConnectError("refused"))) == [f"box:{name}" for name in "abcde"]
    attempts = walk(journey(customer(HOSTED), *five), ConnectError("refused"))
    assert served_by(attempts) == ["box:a", "box:b", "box:c", "provider:hosted", "box:d", "box:e"]
    assert [one.extra for one in attempts] == [False] * 4 + [True] * 2
    assert not any(one.forced or one.reason for one in attempts if one.kind == "own")


def test_where_no_fallback_is_left_a_spent_retry_budget_keeps_nobody_from_a_healthy_box() -> None:
    for steps, stream in (((), True), ((), False), ((HOSTED,), True)):
        way = journey(customer(*steps), FakeBox("a"), FakeBox("b"), stream=stream, take_retry=lambda now: False)
        attempts = walk(way, ConnectError("refused"))
        hosted = ["provider:hosted"] if steps else []
        assert served_by(attempts) == ["box:a", *hosted, "box:b"]
        assert attempts[-1].extra
        assert attempts[-1].until == 60.0, "nothing stands behind it"


def test_of_boxes_beyond_the_limits_those_that_are_well_come_first_and_crowded_ones_never_for_a_low_priority() -> None:
    boxes = [FakeBox("a"), FakeBox("b"), FakeBox("c"), full_box("d"), FakeBox("e"), FakeBox("f", down=OPEN_BREAKER)]
    served = served_by(walk(journey(customer(), *boxes), ConnectError("refused")))
    assert served == ["box:a", "box:b", "box:c", "box:e", "box:d", "box:f"]
    low = replace(customer(), priority="low")
    served = served_by(walk(journey(low, *boxes), ConnectError("refused")))
    assert served == ["box:a", "box:b", "box:c", "box:e", "box:f"]


def test_a_box_whose_base_failed_is_not_asked_for_the_adapter_beyond_the_limits() -> None:
    way = journey(customer(BaseStep()), FakeBox("a"), FakeBox("b"), take_retry=lambda now: False)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:a", "base:b"]


def test_who_has_taken_down_two_boxes_is_kept_from_those_beyond_the_limits() -> None:
    attempts = walk(journey(customer(), *[FakeBox(str(i)) for i in range(9)]), ConnectionLost("eof"))
    assert len(attempts) == MAX_CRASHES


def test_a_slow_third_box_leaves_time_to_those_beyond_the_limits() -> None:
    way = journey(customer(ttft_budget_s=2.0, deadline_s=10.0), *[FakeBox(name) for name in "abcd"])
    now = 0.0
    for _ in range(3):
        attempt = way.next(now)
        assert isinstance(attempt, Attempt)
        assert attempt.until == now + 2.0
        now = attempt.until
        way.failed(attempt, UpstreamTimeout("silence"))
    last = way.next(now)
    assert isinstance(last, Attempt)
    assert (last.served_by, last.until) == ("box:d", 10.0)


OPEN_BREAKER = Reason.CIRCUIT_OPEN
well = st.lists(st.sampled_from([None, None, Reason.CIRCUIT_OPEN]), min_size=1, max_size=8)


@given(
    steps=st.lists(st.sampled_from([HOSTED, OTHER]), max_size=2, unique=True),
    boxes=well,
    budget=st.lists(st.booleans(), min_size=8, max_size=8),
    stream=st.booleans(),
    data=st.data(),
)
def test_no_request_fails_while_a_box_that_may_be_asked_is_well(
    steps: list[Step], boxes: list[Reason | None], budget: list[bool], stream: bool, data: st.DataObject
) -> None:
    """I1, whatever the retry budget and the number of boxes: all that fail do so fast, and kill nobody."""
    allowed = iter(budget)
    views = [FakeBox(str(i), down=down) for i, down in enumerate(boxes)]
    good = data.draw(st.sampled_from([f"box:{box.name}" for box in views]))
    way = journey(customer(*steps), *views, stream=stream, take_retry=lambda now: next(allowed, False))
    asked: list[str] = []
    while (attempt := way.next(0.0)) is not None:
        assert isinstance(attempt, Attempt)
        asked.append(attempt.served_by)
        if attempt.served_by == good:
            break
        way.failed(attempt, ConnectError("refused"))
    assert asked[-1] == good
    assert len(asked) == len(set(asked)), "nobody is asked twice"
    # The limit before the fallback stays.
    assert next((i for i, one in enumerate(asked) if one.startswith("provider:")), 0) <= 3


def test_a_request_that_may_kill_engines_meets_two_at_most() -> None:
    attempts = walk(journey(customer(BaseStep(), HOSTED), *[FakeBox(str(i)) for i in range(9)]), ConnectionLost("eof"))
    assert sum(a.box is not None for a in attempts) == MAX_CRASHES
    assert attempts[-1].served_by == "provider:hosted"


def test_a_spent_retry_budget_goes_straight_to_the_fallback() -> None:
    way = journey(customer(HOSTED), FakeBox("a"), FakeBox("b"), take_retry=lambda now: False)
    assert served_by(walk(way, ConnectError("refused")))[:2] == ["box:a", "provider:hosted"]


def test_fallback_steps_are_never_charged_to_the_retry_budget() -> None:
    charged: list[float] = []

    def take(now: float) -> bool:
        charged.append(now)
        return True

    walk(journey(customer(HOSTED, OTHER, STATIC), FakeBox("a"), FakeBox("b"), take_retry=take), ConnectError("refused"))
    assert len(charged) == 1


def test_a_box_that_let_nobody_in_is_no_attempt() -> None:
    way = journey(customer(HOSTED), FakeBox("a"), FakeBox("b"), take_retry=lambda now: False)
    first = way.next(0.0)
    assert first is not None
    way.failed(first, NotAdmitted("trial"))
    second = way.next(0.0)
    assert second is not None
    assert (second.served_by, second.number) == ("box:b", 1)


def test_steps_that_cannot_serve_the_request_are_skipped_and_named() -> None:
    way = journey(
        customer(HOSTED, STATIC), FakeBox("a"), unsuited=lambda step: "a regex has no twin", static_suits=False
    )
    assert served_by(walk(way, ConnectError("refused"))) == ["box:a"]
    assert any("a regex has no twin" in line for line in way.tried)


OPEN = "circuit open"


def test_a_provider_whose_breaker_is_open_is_skipped_and_named_and_the_next_step_answers() -> None:
    way = journey(customer(HOSTED, OTHER), FakeBox("a"), providers=FakeProviders({"hosted": OPEN}))
    attempts = [way.next(0.0)]
    assert attempts[0] is not None
    way.failed(attempts[0], UpstreamTimeout("silence"))
    second = way.next(2.0)
    assert second is not None
    assert (second.served_by, second.number, second.forced) == ("provider:other", 2, False)
    assert second.reason is Reason.TTFT_BUDGET, "the own adapter's first failure, not what became of a step"
    assert way.tried == ["box:a: no answer in time", "provider:hosted: skipped: circuit open"]


def test_a_provider_whose_breaker_is_open_is_asked_when_all_else_failed() -> None:
    boxes = FakeBox("a", down=Reason.CIRCUIT_OPEN), FakeBox("b")
    way = journey(customer(HOSTED, OTHER), *boxes, providers=FakeProviders({"hosted": OPEN}))
    attempts = walk(way, ConnectError("refused"))
    assert served_by(attempts) == ["box:b", "provider:other", "box:a", "provider:hosted"]
    assert [attempt.forced for attempt in attempts] == [False, False, True, True]
    assert attempts[-1].reason is Reason.BACKEND_DOWN


def test_who_meets_two_boxes_that_die_of_it_may_still_ask_the_provider_as_the_last_resort() -> None:
    boxes = [FakeBox("a"), FakeBox("b"), FakeBox("c", down=Reason.CIRCUIT_OPEN)]
    way = journey(customer(HOSTED), *boxes, providers=FakeProviders({"hosted": OPEN}))
    assert served_by(walk(way, ConnectionLost("eof"))) == ["box:a", "box:b", "provider:hosted"]


def test_a_provider_that_is_to_be_left_alone_is_not_even_the_last_resort() -> None:
    providers = FakeProviders({"hosted": "it is busy", "other": OPEN}, slow=frozenset({"hosted"}))
    way = journey(customer(HOSTED, OTHER), FakeBox("a"), providers=providers)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:a", "provider:other"]
    assert "provider:hosted: skipped: it is busy" in way.tried


def test_the_fixed_text_comes_before_a_provider_whose_breaker_is_open() -> None:
    way = journey(customer(HOSTED, STATIC), FakeBox("a"), providers=FakeProviders({"hosted": OPEN}))
    attempts = [way.next(0.0), way.next(0.0)]
    assert [attempt and attempt.served_by for attempt in attempts] == ["box:a", "static"]


def test_providers_that_are_the_last_resort_share_what_is_left_of_the_deadline() -> None:
    providers = FakeProviders({"hosted": OPEN, "other": OPEN})
    way = journey(customer(HOSTED, OTHER, deadline_s=8.0), providers=providers)
    assert [attempt.until for attempt in walk(way, UpstreamTimeout("silence"), 4.0)] == [6.0, 8.0]


def test_a_provider_whose_trial_was_just_taken_is_no_attempt_and_is_named() -> None:
    way = journey(customer(HOSTED, OTHER))
    first = way.next(0.0)
    assert first is not None
    way.failed(first, NotAdmitted("trial"))
    second = way.next(0.0)
    assert second is not None
    assert (second.served_by, second.number) == ("provider:other", 1)
    assert way.tried == ["provider:hosted: skipped: circuit open"]


def test_a_stream_waits_for_its_first_token_no_longer_than_the_budget() -> None:
    way = journey(customer(HOSTED), FakeBox("a"), FakeBox("b"))
    first = way.next(0.0)
    assert first is not None
    assert first.until == 2.0
    way.failed(first, UpstreamTimeout("silence"))
    second = way.next(2.0)
    assert second is not None
    assert second.until == 4.0


def test_the_own_adapter_leaves_time_for_the_fallback() -> None:
    way = journey(customer(HOSTED, ttft_budget_s=9.0, deadline_s=3.0), FakeBox("a"), FakeBox("b"))
    first = way.next(0.0)
    assert first is not None
    assert first.until == pytest.approx(2.0)
    way.failed(first, UpstreamTimeout("silence"))
    second = way.next(2.0)
    assert second is not None
    assert (second.served_by, second.until) == ("provider:hosted", 3.0)


def test_plain_attempts_take_half_of_what_is_left_of_their_budget() -> None:
    way = journey(customer(HOSTED, plain_budget_s=8.0), FakeBox("a"), FakeBox("b"), stream=False)
    first = way.next(0.0)
    assert first is not None
    assert first.until == 4.0
    way.failed(first, UpstreamTimeout("silence"))
    second = way.next(4.0)
    assert second is not None
    assert second.until == 6.0


def test_a_step_with_another_behind_it_takes_half_of_what_is_left() -> None:
    way = journey(customer(HOSTED, OTHER, STATIC, deadline_s=60.0))
    first = way.next(0.0)
    assert first is not None
    assert first.until == 30.0
    way.failed(first, UpstreamTimeout("silence"))
    second = way.next(30.0)
    assert second is not None
    assert second.until == 60.0


def test_fixed_text_is_given_even_when_the_time_is_over() -> None:
    way = journey(customer(HOSTED, STATIC), FakeBox("a"))
    last = way.next(100.0)
    assert last is not None
    assert last.served_by == "static"


errors = st.sampled_from(
    [ConnectError("x"), ConnectionLost("x"), UpstreamStatus(500), UpstreamStatus(404), UpstreamTimeout("x")]
)
conditions = st.sampled_from([None, Reason.CIRCUIT_OPEN, Reason.ADAPTER_UNAVAILABLE])


@given(
    steps=st.lists(st.sampled_from([HOSTED, BaseStep(), STATIC]), max_size=3),
    boxes=st.lists(st.tuples(conditions, conditions, st.booleans()), max_size=6),
    outcomes=st.lists(st.tuples(errors, st.floats(0, 30)), min_size=30, max_size=30),
    stream=st.booleans(),
    shut=st.booleans(),
    slow=st.booleans(),
)
def test_every_way_ends_within_its_bounds(
    steps: list[Step],
    boxes: list[tuple[Reason | None, Reason | None, bool]],
    outcomes: list[tuple[UpstreamError, float]],
    stream: bool,
    shut: bool,
    slow: bool,
) -> None:
    policy = customer(*steps)
    views = [FakeBox(str(i), down=d, base_down=b, fails_fast=f) for i, (d, b, f) in enumerate(boxes)]
    providers = FakeProviders({"hosted": OPEN} if shut else {}, slow=frozenset({"hosted"} if slow else ()))
    way = journey(policy, *views, stream=stream, providers=providers)
    now = 0.0
    own = crashes = 0
    for error, takes in outcomes:
        attempt = way.next(now)
        if attempt is None:
            break
        assert now < attempt.until <= policy.deadline_s or attempt.kind == "static"
        assert (attempt.reason is None) == (attempt.kind == "own")
        assert attempt.kind != "provider" or (attempt.forced == shut and not (shut and slow))
        own += attempt.kind == "own" and not attempt.forced and not attempt.extra
        if attempt.box is not None:
            assert crashes < MAX_CRASHES
            crashes += isinstance(error, ConnectionLost) or (isinstance(error, UpstreamStatus) and error.status == 500)
        now = min(now + takes, attempt.until) if attempt.kind != "static" else now
        way.failed(attempt, error)
    else:
        pytest.fail("the way does not end")
    assert own <= 3


def full_box(name: str) -> FakeBox:
    """All its slots are at work for others."""
    box = FakeBox(name, load=BoxLoad(1))
    box.load.began("other_v1", streamed=False)
    return box


def test_a_request_waits_for_room_for_most_of_its_budget_before_it_goes_elsewhere() -> None:
    box = full_box("a")
    way = journey(customer(HOSTED, ttft_budget_s=2.0), box)
    wait = way.next(0.0)
    assert isinstance(wait, Wait)
    assert (wait.boxes, wait.until) == ((box,), WAIT_SHARE * 2.0)
    way.waited(None)
    attempt = way.next(wait.until)
    assert isinstance(attempt, Attempt)
    assert (attempt.served_by, attempt.reason) == ("provider:hosted", Reason.BACKEND_SATURATED)


def test_who_was_given_room_has_what_is_left_of_the_budget_for_its_first_token() -> None:
    box = full_box("a")
    way = journey(customer(HOSTED, ttft_budget_s=2.0), box)
    assert isinstance(way.next(0.0), Wait)
    permit = object()
    way.waited(box, permit)  # type: ignore[arg-type]
    attempt = way.next(1.5)
    assert isinstance(attempt, Attempt)
    assert (attempt.served_by, attempt.permit, attempt.until) == ("box:a", permit, 2.0)


def test_nobody_waits_where_a_first_token_would_come_too_late_anyway() -> None:
    assert served_by(walk(journey(customer(HOSTED), FakeBox("a", ttft_s=9.0)), ConnectError("refused"))) == [
        "provider:hosted",
        "box:a",
    ]
    assert isinstance(journey(customer(HOSTED), FakeBox("a", ttft_s=9.0)).next(0.0), Attempt)


def test_without_a_fallback_that_could_be_taken_a_request_waits_for_half_of_its_time() -> None:
    for steps in ((), (HOSTED,)):
        providers = FakeProviders({"hosted": "it said 429"})
        way = journey(customer(*steps, deadline_s=60.0), FakeBox("a", ttft_s=9.0), providers=providers)
        wait = way.next(0.0)
        assert isinstance(wait, Wait)
        assert wait.until == pytest.approx(20.0 if steps else 30.0)


def test_a_box_that_is_full_is_the_last_resort_but_not_for_a_low_priority() -> None:
    policy = customer(HOSTED)
    assert served_by(walk(journey(policy, full_box("a")), ConnectError("refused"))) == ["provider:hosted", "box:a"]
    low = replace(policy, priority="low")
    assert served_by(walk(journey(low, full_box("a")), ConnectError("refused"))) == ["provider:hosted"]


def test_behind_a_home_that_failed_another_box_is_asked_without_waiting() -> None:
    way = journey(customer(HOSTED), FakeBox("a"), full_box("b"))
    attempts = walk(way, ConnectError("refused"))
    assert served_by(attempts) == ["box:a", "provider:hosted", "box:b"]


def test_room_elsewhere_is_taken_after_a_wait_for_the_home() -> None:
    home, other = full_box("a"), FakeBox("b")
    way = journey(customer(HOSTED), home, other)
    assert isinstance(way.next(0.0), Wait)
    way.waited(None)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:b", "provider:hosted", "box:a"]


def test_a_home_that_is_away_is_not_waited_for() -> None:
    attempt = journey(customer(HOSTED), FakeBox("a", down=Reason.CIRCUIT_OPEN), FakeBox("b")).next(0.0)
    assert isinstance(attempt, Attempt)
    assert attempt.served_by == "box:b"


def test_what_a_wait_came_to_is_told_by_how_boxes_are_when_it_is_over() -> None:
    box = full_box("a")
    way = journey(customer(HOSTED), box)
    assert isinstance(way.next(0.0), Wait)
    box.down = Reason.CIRCUIT_OPEN
    way.waited(None)
    attempt = way.next(0.5)
    assert isinstance(attempt, Attempt)
    assert (attempt.served_by, attempt.reason) == ("provider:hosted", Reason.CIRCUIT_OPEN)


def test_behind_the_box_that_had_room_the_others_are_asked_as_they_are_then() -> None:
    home, other = full_box("a"), full_box("b")
    way = journey(customer(HOSTED), home, other)
    assert isinstance(way.next(0.0), Wait)
    way.waited(other)
    other.load.began("acme_v3", streamed=False)
    home.load.attempts.ended("other_v1", silent=False)
    assert served_by(walk(way, ConnectError("refused"))) == ["box:b", "box:a", "provider:hosted"]
