"""An adapter that ends every box that it is asked for at is kept off them; one that only stood by is not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConnectError, ConnectionLost, Reason, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.obstacle import Obstacle, in_words
from gateway.fleet.suspects import (
    ELSEWHERE_S,
    FIRST_HOLD_S,
    LONGER_HOLD_S,
    LONGEST_HOLD_S,
    SUSPECTED_AFTER,
    WINDOW_S,
    hold_s,
)
from gateway.policy.compiled import BoxSpec
from tests.fleet.policies import compiled
from tests.fleet.token_box import Watchers, new_watchers

POISON, GOOD = "acme_v3", "acme_v4"
SPECS = tuple(
    BoxSpec(name=name, url=f"http://127.0.0.1:{port}", max_loras=2, max_cpu_loras=8, fleet="main")
    for name, port in (("a", 8001), ("b", 8002))
)
LOST = ConnectionLost("gone")


class Boxes:
    """Two boxes of one fleet, and a clock."""

    def __init__(self, watchers: Watchers) -> None:
        self.now = 1000.0
        self.alarms = watchers.alarms
        self.fleets = Fleets(
            metrics=watchers.metrics,
            alarms=watchers.alarms,
            events=watchers.events,
            clock=lambda: self.now,
            probing=False,
        )
        self.follow(*SPECS)

    def follow(self, *specs: BoxSpec, adapters: tuple[str, ...] = (POISON, GOOD)) -> None:
        self.fleets.follow(compiled(*specs, adapters=adapters))

    def __getitem__(self, name: str) -> Box:
        box = self.fleets.find(name)
        assert box is not None
        return box

    def ask(self, name: str, adapter: str, error: UpstreamError | None = None, *, answered: bool = False) -> None:
        permit = self[name].admit(adapter, self.now)
        assert permit is not None, f"{name} does not let {adapter} in"
        if answered or error is None:
            permit.succeeded(self.now)
        if error is None:
            permit.released()
        else:
            permit.failed(error, self.now)

    def find_down(self, name: str) -> None:
        """A probe finds that nothing listens there."""
        probe = self[name].admit(None, self.now, probe=True)
        assert probe is not None
        probe.failed(ConnectError("refused"), self.now)

    def come_back(self, name: str) -> None:
        """A probe is answered, whenever the breaker lets its success count."""
        probe = self[name].admit(None, self.now, probe=True)
        assert probe is not None
        probe.succeeded(self.now)
        probe.released()
        assert self[name].breaker.closed

    def end(self, name: str, *adapters: str) -> None:
        """The box ends under these requests, and comes back."""
        permits = [self[name].admit(adapter, self.now) for adapter in adapters]
        for permit in permits:
            assert permit is not None
            permit.failed(LOST, self.now)
        self.find_down(name)
        self.now += 5.0
        self.come_back(name)

    def alarmed(self) -> list[str]:
        return [alarm.subject for alarm in self.alarms.current() if alarm.kind == "adapter_suspected"]


@pytest.fixture
def boxes(watchers: Watchers) -> Boxes:
    return Boxes(watchers)


def test_one_end_keeps_nobody_away(boxes: Boxes) -> None:
    boxes.end("a", POISON, GOOD)
    assert boxes["a"].obstacle(POISON, boxes.now) is None
    assert boxes.alarmed() == []


def test_an_adapter_that_was_asked_for_at_each_of_two_ends_is_kept_off_every_box_for_a_moment(boxes: Boxes) -> None:
    boxes.ask("a", POISON, LOST)
    boxes.find_down("a")
    boxes.ask("b", POISON, LOST)
    boxes.find_down("b")
    for name in "ab":
        assert boxes[name].obstacle(POISON, boxes.now) is Obstacle.ADAPTER_SUSPECTED
        assert boxes[name].obstacle(GOOD, boxes.now) is not Obstacle.ADAPTER_SUSPECTED
        assert boxes[name].admit(POISON, boxes.now, force=True) is None, "not as a last resort either"
        assert "tried again in" in in_words(Obstacle.ADAPTER_SUSPECTED, boxes[name], POISON, boxes.now)
        assert boxes[name].pairs.suspected().keys() == {POISON}
    assert boxes["a"].condition(POISON, boxes.now) is Reason.CIRCUIT_OPEN
    assert boxes.alarmed() == [f"main/{POISON}"]


def test_then_one_request_at_a_time_tries_it_at_the_box_that_it_ended_last(boxes: Boxes) -> None:
    boxes.end("a", POISON)
    boxes.end("b", POISON)
    assert hold_s(SUSPECTED_AFTER) == FIRST_HOLD_S < 5.0, "the box took longer to come back"
    first = boxes["b"].admit(POISON, boxes.now)
    assert first is not None
    assert boxes["b"].admit(POISON, boxes.now) is None
    assert boxes["a"].admit(POISON, boxes.now) is None, "one box is enough to find out"
    boxes.now += ELSEWHERE_S
    assert boxes["a"].admit(POISON, boxes.now) is not None, "the other may never come back"


def test_its_own_answer_clears_it_everywhere_at_once(boxes: Boxes) -> None:
    boxes.end("a", POISON)
    boxes.end("b", POISON)
    boxes.ask("b", POISON)
    assert boxes.alarmed() == []
    for name in "ab":
        assert not boxes[name].pairs.known
        assert boxes[name].obstacle(POISON, boxes.now) is None
    boxes.end("a", POISON)
    assert boxes["b"].obstacle(POISON, boxes.now) is None, "it counts from one again"


def test_a_third_end_keeps_it_away_for_longer_from_the_moment_that_the_connection_broke(boxes: Boxes) -> None:
    boxes.end("a", POISON)
    boxes.end("b", POISON)
    boxes.ask("b", POISON, LOST)
    assert boxes["b"].breaker.closed, "that it is gone is not known yet"
    for name in "ab":
        assert boxes[name].obstacle(POISON, boxes.now) is Obstacle.ADAPTER_SUSPECTED
    boxes.find_down("b")
    boxes.now += 5.0
    boxes.come_back("b")
    boxes.now += LONGER_HOLD_S - 5.1
    assert boxes["b"].admit(POISON, boxes.now) is None
    boxes.now += 0.2
    assert boxes["b"].admit(POISON, boxes.now) is not None


def test_whoever_has_answered_since_the_last_end_was_a_witness(boxes: Boxes) -> None:
    boxes.end("a", POISON, GOOD)
    boxes.ask("a", GOOD)
    boxes.end("b", POISON, GOOD)
    assert boxes["b"].obstacle(GOOD, boxes.now) is None
    assert boxes["a"].obstacle(POISON, boxes.now) is Obstacle.ADAPTER_SUSPECTED


@pytest.mark.parametrize(
    "happens",
    [
        lambda boxes: boxes.ask("a", POISON, LOST, answered=True),
        lambda boxes: boxes.ask("a", POISON, UpstreamTimeout("silence")),
        lambda boxes: boxes.ask("a", POISON, ConnectError("refused")),
        lambda boxes: boxes.ask("a", POISON, UpstreamStatus(502)),
    ],
    ids=["it had answered", "silence", "refused", "a proxy's word"],
)
def test_not_every_failure_is_the_end_of_an_engine(boxes: Boxes, happens: Callable[[Boxes], None]) -> None:
    for _ in range(SUSPECTED_AFTER + 1):
        happens(boxes)
        boxes.find_down("a")
        boxes.now += 5.0
        boxes.come_back("a")
    assert boxes.alarmed() == []


def test_many_requests_lost_in_one_end_count_once(boxes: Boxes) -> None:
    permits = [boxes["a"].admit(POISON, boxes.now) for _ in range(10)]
    for permit in permits[:5]:
        assert permit is not None
        permit.failed(LOST, boxes.now)
    boxes.find_down("a")
    for permit in permits[5:]:
        assert permit is not None
        permit.failed(LOST, boxes.now)
    assert boxes.alarmed() == []


def test_what_was_lost_long_before_has_nothing_to_do_with_the_end(boxes: Boxes) -> None:
    for name in "ab":
        boxes.ask(name, POISON, LOST)
        boxes.now += WINDOW_S + 0.1
        boxes.find_down(name)
    assert boxes.alarmed() == []


def test_a_box_that_joins_is_spared_too_and_an_adapter_that_leaves_the_policies_is_forgotten(boxes: Boxes) -> None:
    boxes.end("a", POISON)
    boxes.end("b", POISON)
    moved = BoxSpec(name="a", url="http://127.0.0.1:8003", max_loras=2, max_cpu_loras=8, fleet="main")
    boxes.follow(moved, SPECS[1])
    assert boxes["a"].obstacle(POISON, boxes.now) is Obstacle.ADAPTER_SUSPECTED
    boxes.follow(moved, SPECS[1], adapters=(GOOD,))
    assert boxes.alarmed() == []
    assert not boxes["b"].pairs.known


@given(st.integers(0, 10_000))
def test_holds_grow_and_are_bounded(ends: int) -> None:
    assert 0.0 <= hold_s(ends) <= hold_s(ends + 1) <= LONGEST_HOLD_S
    assert all(later >= earlier for earlier, later in pairwise(hold_s(count) for count in range(20)))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from((POISON, GOOD)), st.booleans()), max_size=30))
def test_an_adapter_is_held_only_after_two_ends_without_an_answer_of_its_own(
    story: list[tuple[str, str, bool]],
) -> None:
    boxes = Boxes(new_watchers())
    ends = {POISON: 0, GOOD: 0}
    for name, adapter, well in story:
        boxes.now += LONGEST_HOLD_S + ELSEWHERE_S
        if well:
            boxes.ask(name, adapter)
            ends[adapter] = 0
        else:
            boxes.end(name, adapter)
            ends[adapter] += 1
        held = {adapter for adapter in ends for name in "ab" if boxes[name].pairs.suspected().get(adapter)}
        assert held == {adapter for adapter, count in ends.items() if count >= SUSPECTED_AFTER}
