"""The circuit breaker: when it opens, when it tries again, and that its one trial slot never gets lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.fleet.breaker import FIRST_OPEN_S, LONGEST_OPEN_S, THRESHOLD, Breaker, Permit, State
from gateway.fleet.failure_rate import MIN_ATTEMPTS, WINDOW_S


def begun(breaker: Breaker, now: float, *, force: bool = False) -> Permit:
    permit = breaker.begin(now, force=force)
    assert permit is not None
    return permit


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    begun(breaker, now).failed(now, weight=THRESHOLD)
    return breaker


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        begun(breaker, 0).failed(0)
        assert breaker.state(0) == "closed"
    begun(breaker, 0).failed(0)
    assert breaker.state(0) == "open"
    assert breaker.begin(0) is None


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(5):
        begun(breaker, 0).failed(0)
        begun(breaker, 0).failed(0)
        begun(breaker, 0).succeeded(0)
    assert breaker.state(0) == "closed"


def test_it_opens_when_half_of_many_attempts_fail_though_never_three_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(MIN_ATTEMPTS // 2):
        assert breaker.closed
        begun(breaker, 0).succeeded(0)
        begun(breaker, 0).failed(0)
    assert breaker.state(0) == "open"


def test_a_few_failures_among_many_answers_or_long_ago_do_not_open_it() -> None:
    breaker = Breaker()
    for now in range(200):
        for _ in range(2):
            begun(breaker, now).succeeded(now)
        begun(breaker, now).failed(now)
    assert breaker.closed
    for now in range(200, 200 + 3 * WINDOW_S, WINDOW_S):
        for _ in range(MIN_ATTEMPTS // 2 - 1):
            begun(breaker, now).failed(now)
            begun(breaker, now).succeeded(now)
    assert breaker.closed, "each burst is too small, and the one before is forgotten"


def test_an_outage_is_not_held_against_what_comes_after_it() -> None:
    breaker = Breaker()
    late = [begun(breaker, 0) for _ in range(MIN_ATTEMPTS)]
    for permit in late:
        permit.failed(0)
    begun(breaker, 1).succeeded(1)
    begun(breaker, 1).failed(1)
    assert breaker.closed


def test_a_failure_of_full_weight_opens_it_at_once() -> None:
    assert opened().state(0) == "open"


def test_it_tries_again_after_a_second_doubling_to_eight() -> None:
    breaker, now = opened(), 0.0
    for wait in (1, 2, 4, 8, 8):
        assert breaker.begin(now + wait - 0.001) is None
        now += wait
        assert breaker.state(now) == "half_open"
        begun(breaker, now).failed(now)
    begun(breaker, now + 8).succeeded(now + 8)
    assert breaker.closed
    begun(breaker, now).failed(now, weight=THRESHOLD)
    assert breaker.retry_at == now + 1, "one success resets the growth"


def test_half_open_lets_one_trial_through_at_a_time() -> None:
    breaker = opened()
    trial = begun(breaker, 1)
    assert not breaker.admits(1)
    assert breaker.begin(1) is None
    trial.released()
    assert breaker.admits(1)
    begun(breaker, 1).succeeded(1)
    assert breaker.state(1) == "closed"


def test_a_client_that_hangs_up_moves_nothing_and_gives_the_slot_back() -> None:
    breaker = opened()
    with begun(breaker, 1):
        pass
    assert breaker.state(1) == "half_open"
    assert breaker.retry_at == 1


def test_late_failures_of_an_outage_neither_lengthen_it_nor_start_the_next() -> None:
    breaker = Breaker()
    late = [begun(breaker, 0) for _ in range(20)]
    for permit in late[:3]:
        permit.failed(2)
    trial = begun(breaker, 3)
    for permit in late[3:10]:
        permit.failed(3)
    trial.succeeded(3)
    for permit in late[10:]:
        permit.failed(4)
    assert breaker.state(4) == "closed"


def test_a_late_success_does_not_close_what_opened_after_it_began() -> None:
    breaker = Breaker()
    slow = begun(breaker, 0)
    begun(breaker, 1).failed(1, weight=THRESHOLD)
    slow.succeeded(1)
    assert breaker.state(1) == "open"


def test_an_attempt_beside_the_rule_closes_by_success_and_changes_nothing_by_failure() -> None:
    breaker = opened()
    begun(breaker, 0.5, force=True).failed(0.5)
    assert (breaker.state(0.5), breaker.retry_at) == ("open", 1)
    trial = begun(breaker, 1)
    begun(breaker, 1.5, force=True).failed(1.5)
    assert breaker.state(1.5) == "half_open"
    begun(breaker, 1.5, force=True).succeeded(1.5)
    assert breaker.state(1.5) == "closed"
    trial.failed(2, weight=THRESHOLD)
    assert breaker.state(2) == "closed", "the trial began before the breaker closed"


def test_a_stream_that_breaks_after_its_commit_counts() -> None:
    breaker = opened()
    trial = begun(breaker, 1)
    trial.succeeded(1)
    trial.failed(5, weight=THRESHOLD)
    assert breaker.state(5) == "open"


def test_each_change_is_told_once() -> None:
    seen: list[State] = []
    breaker = Breaker(threshold=1, on_change=seen.append)
    begun(breaker, 0).failed(0)
    breaker.trip(0)
    begun(breaker, 1).failed(1)
    begun(breaker, 3).released()
    begun(breaker, 3).succeeded(3)
    breaker.trip(4)
    assert seen == ["open", "half_open", "open", "half_open", "closed", "open"]


class AnyHistory(RuleBasedStateMachine):
    """Attempts begin and end in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker()
        self.running: list[Permit] = []
        self.trials: set[Permit] = set()

    @rule(eighths=st.integers(0, 160))
    def time_passes(self, eighths: int) -> None:
        # Eighths of a second add up without rounding.
        self.now += eighths / 8

    @rule(force=st.booleans())
    def an_attempt_begins(self, force: bool) -> None:
        closed, admitted = self.breaker.closed, self.breaker.admits(self.now)
        permit = self.breaker.begin(self.now, force=force)
        assert (permit is not None) == (admitted or force)
        if permit is not None:
            self.running.append(permit)
            if admitted and not closed:
                self.trials.add(permit)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), weight=st.integers(1, 3))
    def one_fails(self, data: st.DataObject, weight: int) -> None:
        self._end(data).failed(self.now, weight=weight)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_is_given_up(self, data: st.DataObject) -> None:
        before = self.breaker.state(self.now), self.breaker.retry_at
        self._end(data).released()
        assert before == (self.breaker.state(self.now), self.breaker.retry_at)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_succeeds_and_goes_on(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.running))
        was_trial = permit in self.trials and not self.breaker.closed
        permit.succeeded(self.now)
        if was_trial and self.breaker.closed:
            self.trials.clear()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_ends_twice(self, data: st.DataObject) -> None:
        permit = self._end(data)
        permit.failed(self.now, weight=2)
        before = self.breaker.state(self.now), self.breaker.retry_at
        permit.failed(self.now, weight=2)
        permit.succeeded(self.now)
        permit.released()
        assert before == (self.breaker.state(self.now), self.breaker.retry_at)

    @rule()
    def it_is_tripped(self) -> None:
        self.breaker.trip(self.now)

    def _end(self, data: st.DataObject) -> Permit:
        permit = data.draw(st.sampled_from(self.running))
        self.running.remove(permit)
        self.trials.discard(permit)
        return permit

    @invariant()
    def it_is_open_for_eight_seconds_at_most(self) -> None:
        if not self.breaker.closed:
            assert FIRST_OPEN_S <= self.breaker.retry_at - (self.breaker.opened_at or 0) <= LONGEST_OPEN_S

    @invariant()
    def only_a_running_trial_keeps_others_out_once_it_may_be_tried(self) -> None:
        if not self.breaker.closed and self.now >= self.breaker.retry_at and not self.breaker.admits(self.now):
            assert self.trials

    def teardown(self) -> None:
        for permit in self.running:
            permit.released()
        assert self.breaker.admits(self.now + LONGEST_OPEN_S), "a slot was lost"


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("end", [Permit.released, lambda permit: permit.failed(1), lambda permit: permit.succeeded(1)])
def test_every_way_a_trial_can_end_lets_the_next_one_in(end: Callable[[Permit], None]) -> None:
    breaker = opened()
    end(begun(breaker, 1))
    assert breaker.admits(1 + LONGEST_OPEN_S)
