"""The table of all workers: whatever the order in which messages come, it is that of one process that saw all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConnectError, ConnectionLost, ErrorFrame, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.permit import Permit
from gateway.fleet.shared_breaker import GUARD_S, TURN_S, TrialTurns
from gateway.workers.messages import Held
from gateway.workers.tally import Tally
from tests.workers.several_processes import Several

ADAPTERS = ("acme_v3", "acme_v4", None)
ERRORS: tuple[UpstreamError, ...] = (
    ConnectError("refused"),
    UpstreamTimeout("silence"),
    UpstreamStatus(404),
    UpstreamStatus(500),
    UpstreamStatus(429),
    UpstreamStatus(400),
    UpstreamStatus(401),
    ErrorFrame("broken"),
    ConnectionLost("gone"),
)


@dataclass
class Running:
    """An attempt that a worker has in flight."""

    worker: int
    permit: Permit
    answered: bool = False


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.sampled_from(ADAPTERS), st.booleans(), st.booleans()),
        st.tuples(st.just("answer"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 30), st.sampled_from(ERRORS)),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("report"), st.integers(0, 2)),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("hear"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.floats(0.01, 2.0)),
        st.tuples(st.just("kill"), st.integers(0, 2)),
    ),
    max_size=60,
)


class Story:
    """What happens, and what one process would have counted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.several = Several(3)
        self.running: list[Running] = []

    def go(self, step: tuple[Any, ...]) -> None:
        kind, *what = step
        several = self.several
        match kind:
            case "ask":
                number, adapter, streamed, force = what
                if (worker := several.workers.get(number)) is not None:
                    permit = worker.box.admit(adapter, self.now, streamed=streamed, force=force)
                    if permit is not None:
                        self.running.append(Running(number, permit))
            case "answer" | "fail" | "end" if self.running:
                one = self.running[what[0] % len(self.running)]
                if kind == "answer":
                    one.permit.succeeded(self.now)
                    return
                self.running.remove(one)
                if kind == "fail":
                    one.permit.failed(what[1], self.now)
                else:
                    one.permit.released()
            case "report" | "read" | "hear" if (worker := several.workers.get(what[0])) is not None:
                if kind == "report":
                    worker.report()
                elif kind == "read" and worker.up:
                    several.read(what[0])
                elif kind == "hear" and worker.down:
                    worker.hear()
            case "tell":
                several.tell()
            case "wait":
                self.now += what[0]
            case "kill" if len(several.workers) > 1 and what[0] in several.workers:
                several.kill(what[0])
                self.running = [one for one in self.running if one.worker != what[0]]

    def boxes(self) -> list[Any]:
        return [self.several.box, *(worker.box for worker in self.several.workers.values())]

    def expected(self) -> dict[str | None, int]:
        return dict(Counter(one.permit.adapter for one in self.running))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_process_ends_up_with_the_counts_of_one_that_saw_all(story_steps: list[tuple[Any, ...]]) -> None:
    story = Story()
    for step in story_steps:
        story.go(step)
        for box in story.boxes():
            attempts = box.load.attempts
            counts = {**attempts.adapters, None: attempts.of(None)}
            assert attempts.total == sum(counts.values()) >= 0
            assert attempts.silent >= 0
            assert all(count >= 0 for count in counts.values())
    story.several.settle()
    silent = sum(1 for one in story.running if one.permit.streamed and not one.permit.answered)
    for box in story.boxes():
        attempts = box.load.attempts
        counts = {name: attempts.of(name) for name in ADAPTERS if attempts.of(name)}
        assert (counts, attempts.total, attempts.silent) == (story.expected(), len(story.running), silent)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_process_ends_up_with_the_watchers_breakers_and_no_trial_is_left(
    story_steps: list[tuple[Any, ...]],
) -> None:
    story = Story()
    for step in story_steps:
        story.go(step)
    story.several.settle()
    watchers = story.several.box
    for worker in story.several.workers.values():
        box = worker.box
        assert box.breaker.finding() == watchers.breaker.finding()
        assert box.duty.finding() == watchers.duty.finding()
        assert _pairs(box) == _pairs(watchers)
        assert box.fails_fast == watchers.fails_fast
        assert box.load.slots.held == watchers.load.slots.held
        assert box.load.limit.limit == watchers.load.limit.limit
        assert box.load.ttfts.finding() == watchers.load.ttfts.finding()
    for one in story.running:
        one.permit.released()
    story.several.settle()
    for box in story.boxes():
        assert box.in_flight == 0
        assert not box.breaker.tried
        assert not any(pair.breaker.tried for _, pair in box.pairs.items())


def _pairs(box: Any) -> dict[str | None, Any]:
    return {adapter: (pair.missing, pair.suspected, pair.breaker.finding()) for adapter, pair in box.pairs.items()}


@given(st.lists(st.tuples(st.integers(0, 3), st.dictionaries(st.sampled_from("abc"), st.integers(1, 5)))))
def test_a_tally_is_the_sum_of_the_last_reports_of_those_that_live(reports: list[tuple[int, dict[str, int]]]) -> None:
    tally, last = Tally(), dict[int, dict[str, int]]()
    for worker, counts in reports:
        tally.report(worker, "box", Held(dict(counts)))
        last[worker] = counts
    total = Counter[str]()
    for counts in last.values():
        total.update(counts)
    assert tally.total("box", reading_at=None).counts == dict(total)
    for worker in last:
        others = tally.total("box", but=worker, reading_at=None).counts
        assert Counter(others) + Counter(last[worker]) == total
    for worker in last:
        tally.forget(worker)
    assert tally.total("box", reading_at=None) == Held()


@given(st.integers(1, 16), st.floats(0, 1e6))
def test_at_no_time_may_two_workers_begin_a_trial_and_each_has_its_turns(workers: int, now: float) -> None:
    turns = [TrialTurns(worker, workers) for worker in range(workers)]
    assert sum(turn.may_begin(now) for turn in turns) <= 1
    # And none just after another's turn has begun, who may not have heard of it yet.
    assert not any(
        turn.may_begin(now) and other.may_begin(now + GUARD_S / 2)
        for turn in turns
        for other in turns
        if turn is not other
    )
    for turn in turns:
        assert any(turn.may_begin(now + step * TURN_S / 4) for step in range(4 * workers + 4))


def test_a_failure_that_the_watcher_has_not_heard_of_is_not_undone_by_older_news() -> None:
    several = Several(2)
    first = several.workers[0]
    several.settle()
    several.box.drain()
    several.tell()
    permit = first.box.admit("acme_v3", 1.0, streamed=True)
    assert permit is not None
    permit.failed(ConnectError("refused"), 1.0)
    assert not first.box.breaker.closed
    while first.down:
        first.hear()
    # It was said before the failure was told: that the breaker is closed is old news.
    assert not first.box.breaker.closed
    several.settle()
    assert first.box.duty.drained
    for box in (several.box, *(worker.box for worker in several.workers.values())):
        assert not box.breaker.closed
    assert [event.fields["state"] for event in several.events.since(0) if event.kind == "box_state"] == ["open"]


def test_failures_in_a_row_are_counted_over_all_workers_and_a_success_anywhere_ends_the_row() -> None:
    several = Several(3)
    several.settle()

    def attempt(number: int, error: UpstreamError | None) -> None:
        permit = several.workers[number].box.admit("acme_v3", 1.0, streamed=True)
        assert permit is not None
        if error is None:
            permit.succeeded(1.0)
            permit.released()
        else:
            permit.failed(error, 1.0)
        several.settle()

    for number in (0, 1):
        attempt(number, UpstreamStatus(500))
    attempt(2, None)
    for number in (1, 2):
        attempt(number, UpstreamStatus(500))
    assert several.box.condition("acme_v3", 1.0) is None
    attempt(0, UpstreamStatus(500))
    for box in (several.box, *(worker.box for worker in several.workers.values())):
        assert box.condition("acme_v3", 1.0) is not None


def test_one_trial_of_a_half_open_breaker_runs_in_all_workers_together_and_comes_back_where_its_worker_dies() -> None:
    several = Several(2)
    several.settle()
    for _ in range(3):
        permit = several.workers[0].box.admit("acme_v3", 1.0, streamed=True)
        assert permit is not None
        permit.failed(UpstreamStatus(500), 1.0)
        several.settle()

    def trials(now: float) -> dict[int, Permit]:
        admitted = {}
        for number, worker in several.workers.items():
            if (permit := worker.box.admit("acme_v3", now, streamed=True)) is not None:
                admitted[number] = permit
            several.settle()
        return admitted

    # Worker 0 has its turn, then worker 1.
    now = next(now for step in range(100) if TrialTurns(0, 2).may_begin(now := 10.0 + step / 20))
    assert list(trials(now)) == [0]
    assert trials(now + TURN_S) == {}
    several.kill(0)
    several.settle()
    assert list(trials(now + TURN_S)) == [1]


def test_a_slot_that_a_request_from_here_has_taken_is_not_lost_to_older_news() -> None:
    several = Several(2)
    several.settle()
    first, second = several.workers.values()
    assert second.box.admit("acme_v4", 1.0, streamed=True) is not None
    second.report()
    several.read(second.number)
    several.tell()
    # Sent, one told and one not yet, while news without them is on its way.
    assert first.box.admit("acme_v3", 1.0, streamed=True) is not None
    first.report()
    assert first.box.admit("acme_v5", 1.0, streamed=True) is not None
    while first.down:
        first.hear()
    assert first.box.load.slots.held == ("acme_v3", "acme_v5")
    several.settle()
    assert first.box.load.slots.held == second.box.load.slots.held == several.box.load.slots.held


def test_what_a_worker_that_ended_had_in_flight_is_nobodys() -> None:
    several = Several(2)
    several.settle()
    assert several.workers[0].box.admit("acme_v3", 1.0, streamed=True) is not None
    several.settle()
    assert (several.box.in_flight, several.workers[1].box.in_flight, several.box.awaited) == (1, 1, False)
    several.kill(0)
    several.settle()
    assert (several.box.in_flight, several.workers[1].box.in_flight) == (0, 0)
    several.start(0)
    several.settle()
    assert several.workers[0].box.in_flight == 0
