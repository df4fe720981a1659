"""Where a box lacks the version that an alias stands for, the customer's other version comes before any fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.decide import MAX_OWN_ATTEMPTS, Plan, decide
from gateway.dataplane.journey import MAX_CRASHES, Attempt, Journey, Wait
from gateway.errors import ConnectError, ConnectionLost, Reason, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.policy.compiled import BaseStep, CustomerPolicy, Step
from tests.dataplane.test_journey import ALL_STEPS, HOSTED, STATIC, FakeBox, FakeProviders, customer

MISSING = UpstreamStatus(404)
Found = Callable[[Attempt], UpstreamError]


class VersionedBox(FakeBox):
    """Has some adapters; the others it is known to lack, or only says so when it is asked (``says``)."""

    def __init__(self, name: str, *has: str, says: bool = True, **more: Reason | None) -> None:
        super().__init__(name, **more)  # type: ignore[arg-type]
        self.has, self.says = has, says

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        if adapter is not None and adapter not in self.has and not self.says:
            return Reason.ADAPTER_UNAVAILABLE
        return super().condition(adapter, now)


def way_of(
    policy: CustomerPolicy,
    versions: Sequence[str],
    *boxes: FakeBox,
    take_retry: bool = True,
    stream: bool = True,
) -> Journey:
    left = iter(versions)

    def plan(now: float) -> Plan | None:
        version = next(left, None)
        if version is None:
            return None
        return decide(policy, boxes, adapter=version, stream=stream, fallback_allowed=True, now=now)

    first = plan(0.0)
    assert first is not None
    return Journey(
        first,
        policy,
        stream=stream,
        now=0.0,
        take_retry=lambda now: take_retry,
        unsuited=lambda step: None,
        static_suits=lambda step: True,
        providers=FakeProviders(),
        other_version=plan,
    )


def walk(way: Journey, found: Found = lambda attempt: ConnectError("refused")) -> list[str]:
    seen = []
    while (attempt := way.next(0.0)) is not None:
        if isinstance(attempt, Wait):
            way.waited(None)
            continue
        seen.append(attempt.served_by + (f" {attempt.adapter}" if attempt.adapter else ""))
        if attempt.kind == "static":
            break
        box = attempt.box
        lacks = isinstance(box, VersionedBox) and attempt.adapter is not None and attempt.adapter not in box.has
        way.failed(attempt, MISSING if lacks else found(attempt))
    return seen


def test_boxes_that_say_they_lack_the_version_are_asked_for_the_other() -> None:
    way = way_of(customer(HOSTED), ["v4", "v3"], VersionedBox("a", "v3"), VersionedBox("b", "v3"))
    assert walk(way) == ["box:a v4", "box:b v4", "box:a v3", "provider:hosted", "box:b v3"]
    assert way.reason is Reason.ADAPTER_UNAVAILABLE


def test_boxes_known_to_lack_it_are_not_asked_for_it_again_before_all_else_failed() -> None:
    boxes = VersionedBox("a", "v3", says=False), VersionedBox("b", "v3", says=False)
    assert walk(way_of(customer(HOSTED), ["v4", "v3"], *boxes)) == ["box:a v3", "box:b v3", "provider:hosted"]


def test_an_answer_of_the_other_version_is_not_degraded() -> None:
    way = way_of(customer(HOSTED), ["v4", "v3"], VersionedBox("a", "v3", says=False))
    attempt = way.next(0.0)
    assert isinstance(attempt, Attempt)
    assert (attempt.kind, attempt.adapter, attempt.reason) == ("own", "v3", None)


def test_a_version_that_fails_otherwise_goes_to_the_fallback() -> None:
    boxes = VersionedBox("a", "v3", "v4"), VersionedBox("b", "v3", "v4")
    assert walk(way_of(customer(HOSTED), ["v4", "v3"], *boxes)) == ["box:a v4", "box:b v4", "provider:hosted"]


def test_one_attempt_is_kept_for_the_other_version_however_many_boxes_there_are() -> None:
    boxes = [VersionedBox(str(number), "v3") for number in range(9)]
    way = way_of(customer(HOSTED), ["v4", "v3"], *boxes)
    found = walk(way)
    assert found[:4] == ["box:0 v4", "box:1 v4", "box:0 v3", "provider:hosted"]
    assert found[4:] == [f"box:{number} v3" for number in range(1, 9)], "with nothing else left"


def test_the_other_version_is_not_charged_to_the_retry_budget() -> None:
    boxes = VersionedBox("a", "v3"), VersionedBox("b", "v3")
    way = way_of(customer(HOSTED), ["v4", "v3"], *boxes, take_retry=False)
    assert walk(way) == ["box:a v4", "box:a v3", "provider:hosted", "box:b v3"]


def test_a_third_version_is_asked_where_the_second_is_missing_too() -> None:
    way = way_of(customer(), ["v4", "v3", "v2"], VersionedBox("a", "v2"))
    assert walk(way) == ["box:a v4", "box:a v3", "box:a v2"]


def test_without_a_fallback_the_last_box_that_may_lack_it_does_not_get_all_the_time() -> None:
    way = way_of(customer(), ["v4", "v3"], VersionedBox("a", "v3"), VersionedBox("b", "v3", "v4"))
    first = way.next(0.0)
    assert isinstance(first, Attempt)
    way.failed(first, MISSING)
    second = way.next(0.0)
    assert isinstance(second, Attempt)
    assert (second.served_by, second.until) == ("box:b", 2.0)
    way.failed(second, UpstreamTimeout("silence"))
    third = way.next(2.0)
    assert isinstance(third, Attempt)
    assert (third.served_by, third.adapter) == ("box:a", "v3")


def test_a_box_that_is_found_to_lack_it_as_the_last_resort_is_asked_for_the_other() -> None:
    box = VersionedBox("a", "v3", down=Reason.CIRCUIT_OPEN)
    way = way_of(customer(HOSTED), ["v4", "v3"], box)
    assert walk(way) == ["provider:hosted", "box:a v4", "box:a v3"]


errors = st.sampled_from(
    [ConnectError("x"), ConnectionLost("x"), UpstreamStatus(500), UpstreamStatus(404), UpstreamTimeout("x")]
)
conditions = st.sampled_from([None, Reason.CIRCUIT_OPEN])
VERSIONS = ["v4", "v3", "v2"]


@given(
    steps=st.lists(st.sampled_from(ALL_STEPS), max_size=3),
    boxes=st.lists(
        st.tuples(st.sets(st.sampled_from(VERSIONS)), st.booleans(), conditions, conditions, st.booleans()), max_size=5
    ),
    outcomes=st.lists(st.tuples(errors, st.floats(0, 30)), min_size=40, max_size=40),
    stream=st.booleans(),
    take_retry=st.booleans(),
)
def test_every_way_over_versions_ends_within_its_bounds(
    steps: list[Step],
    boxes: list[tuple[set[str], bool, Reason | None, Reason | None, bool]],
    outcomes: list[tuple[UpstreamError, float]],
    stream: bool,
    take_retry: bool,
) -> None:
    policy = customer(*steps)
    views = [
        VersionedBox(str(i), *has, says=says, down=down, base_down=base_down)
        for i, (has, says, down, base_down, _) in enumerate(boxes)
    ]
    for view, (*_, fails_fast) in zip(views, boxes, strict=True):
        view.fails_fast = fails_fast
    way = way_of(policy, VERSIONS, *views, stream=stream, take_retry=take_retry)
    now = 0.0
    own = crashes = 0
    fallback_begun = False
    for error, takes in outcomes:
        attempt = way.next(now)
        if attempt is None:
            break
        if isinstance(attempt, Wait):
            assert attempt.adapter in VERSIONS
            way.waited(None)
            continue
        assert now < attempt.until <= policy.deadline_s or attempt.kind == "static"
        assert (attempt.reason is None) == (attempt.kind == "own")
        assert (attempt.adapter is None) == (attempt.kind != "own")
        fallback_begun |= attempt.kind != "own" or attempt.forced
        own += attempt.kind == "own" and not attempt.forced and not attempt.extra
        assert own <= MAX_OWN_ATTEMPTS
        if attempt.box is not None:
            assert crashes < MAX_CRASHES
            crashes += isinstance(error, ConnectionLost) or (isinstance(error, UpstreamStatus) and error.status == 500)
        if attempt.kind == "static":
            break
        now = min(now + takes, attempt.until)
        way.failed(attempt, error)
    else:
        raise AssertionError("it does not end")


@given(
    has=st.sets(st.sampled_from(VERSIONS)),
    number=st.integers(1, 9),
    says=st.booleans(),
    steps=st.lists(st.sampled_from([HOSTED, BaseStep(), STATIC]), max_size=2),
)
def test_of_two_versions_the_one_that_the_boxes_have_is_asked_before_the_fallback(
    has: set[str], number: int, says: bool, steps: list[Step]
) -> None:
    boxes = [VersionedBox(str(i), *has, says=says) for i in range(number)]
    seen = walk(way_of(customer(*steps), ["v4", "v3"], *boxes))
    there = [version for version in ("v4", "v3") if version in has]
    before = list(takewhile(lambda line: line.startswith("box:"), seen))
    if there:
        assert before[-1].endswith(f" {there[0]}")
