"""What says that it has too much to do is left alone for as long as it said, and then asked by one at a time."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.fleet.back_off import LONGEST_NAMED_S, LONGEST_S, BackOff, Turn


def begun(back_off: BackOff, now: float, *, force: bool = False) -> Turn:
    turn = back_off.begin(now, force=force)
    assert turn is not None
    return turn


def test_it_is_not_asked_before_the_time_it_named() -> None:
    back_off = BackOff()
    begun(back_off, 0).refused(0, 7)
    assert back_off.begin(6.999) is None
    assert back_off.begin(6.999, force=True) is None
    assert back_off.waits(6.999)
    begun(back_off, 7)


@pytest.mark.parametrize(("named", "waits"), [(3600.0, LONGEST_NAMED_S), (60.0, 60.0), (0.0, 1.0), (None, 1.0)])
def test_no_time_and_too_long_a_time_are_bounded(named: float | None, waits: float) -> None:
    back_off = BackOff()
    begun(back_off, 0).refused(0, named)
    assert back_off.until == waits


def test_where_it_names_no_time_the_wait_doubles_to_eight_seconds_while_it_goes_on() -> None:
    back_off, now = BackOff(), 0.0
    for wait in (1, 2, 4, 8, 8):
        begun(back_off, now).refused(now, None)
        assert back_off.begin(now + wait - 0.001) is None
        now += wait
    turn = begun(back_off, now)
    assert turn.succeeded()
    assert back_off.until is None
    turn.released()
    begun(back_off, now).refused(now, None)
    assert back_off.until == now + 1, "one success resets the growth"


def test_after_the_wait_one_at_a_time_finds_out() -> None:
    back_off = BackOff()
    begun(back_off, 0).refused(0, None)
    trial = begun(back_off, 1)
    assert not back_off.admits(1)
    assert back_off.begin(1) is None
    assert back_off.begin(1, force=True) is not None
    trial.released()
    assert back_off.admits(1)


def test_a_burst_that_was_under_way_counts_once_and_its_late_answers_end_no_wait() -> None:
    back_off = BackOff()
    burst = [begun(back_off, 0) for _ in range(20)]
    for turn in burst[:19]:
        turn.refused(0.5, None)
    assert back_off.until == 1.5
    assert not burst[19].succeeded()
    assert back_off.until == 1.5
    begun(back_off, 1.5).refused(1.5, None)
    assert back_off.until == 3.5


def test_a_late_answer_that_names_a_time_is_obeyed() -> None:
    back_off = BackOff()
    early, late, later = (begun(back_off, 0) for _ in range(3))
    early.refused(0, None)
    late.refused(0, 20)
    later.refused(0, 5)
    assert back_off.until == 20


class AnyHistory(RuleBasedStateMachine):
    """Attempts begin and end in any order; whatever happens, a wait is bounded and the slot of a trial comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.back_off = BackOff()
        self.now = 0.0
        self.running: list[Turn] = []

    @rule(by=st.sampled_from([0.0, 0.1, 1.0, 5.0, 61.0]))
    def time_passes(self, by: float) -> None:
        self.now += by

    @rule(force=st.booleans())
    def one_asks(self, force: bool) -> None:
        waits, admits = self.back_off.waits(self.now), self.back_off.admits(self.now)
        turn = self.back_off.begin(self.now, force=force)
        assert (turn is not None) == (admits or (force and not waits))
        if turn is not None:
            self.running.append(turn)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), named=st.none() | st.floats(0.001, 1e6) | st.just(0.0))
    def one_is_refused(self, data: st.DataObject, named: float | None) -> None:
        before = self.back_off.until
        self._end(data).refused(self.now, named)
        if named:
            assert self.back_off.waits(self.now)
        if before is not None and before > self.now:
            assert self.back_off.until is not None
            assert self.back_off.until >= before, "no wait gets shorter"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_is_given_up(self, data: st.DataObject) -> None:
        before = self.back_off.until
        turn = self._end(data)
        turn.released()
        assert not turn.refused(self.now, 9)
        assert not turn.succeeded()
        assert self.back_off.until == before

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_succeeds_and_goes_on(self, data: st.DataObject) -> None:
        waited = self.back_off.waits(self.now)
        data.draw(st.sampled_from(self.running)).succeeded()
        assert not waited or self.back_off.waits(self.now), "who was let in before says nothing about now"

    def _end(self, data: st.DataObject) -> Turn:
        turn = data.draw(st.sampled_from(self.running))
        self.running.remove(turn)
        return turn

    @invariant()
    def a_wait_is_bounded(self) -> None:
        if self.back_off.until is not None:
            assert self.back_off.until <= self.now + max(LONGEST_NAMED_S, LONGEST_S)

    def teardown(self) -> None:
        for turn in self.running:
            turn.released()
        assert self.back_off.admits(self.now + LONGEST_NAMED_S), "a slot was lost"


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
