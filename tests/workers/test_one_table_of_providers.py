"""The providers' part of the table: whatever the order of messages, all workers follow the watcher's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConnectError, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.provider_health import ProviderHealth, ProviderPermit
from gateway.policy.compiled import ProviderSpec
from tests.fleet.policies import compiled
from tests.workers.several_processes import SPEC, Several

POLICY = replace(
    compiled(SPEC), providers={"hosted": ProviderSpec("hosted", "openai/gpt-4o-mini", None, "sk-provider", None)}
)

ERRORS: tuple[UpstreamError, ...] = (
    ConnectError("refused"),
    UpstreamTimeout("silence"),
    UpstreamStatus(500),
    UpstreamStatus(429),
    UpstreamStatus(429, retry_after_s=3.0),
    UpstreamStatus(401),
    UpstreamStatus(400),
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("answer"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 30), st.sampled_from(ERRORS)),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("hear"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.floats(0.01, 4.0)),
        st.tuples(st.just("kill"), st.integers(0, 2)),
    ),
    max_size=60,
)


@dataclass
class Running:
    worker: int
    permit: ProviderPermit


def health(processes: Any) -> ProviderHealth:
    found: ProviderHealth = processes.hosted.all()["hosted"]
    return found


def states(processes: Any) -> tuple[Any, ...]:
    one = health(processes)
    return one.breaker.finding(), one.back_off.finding(), one.silent, one.last_error


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_worker_ends_up_with_the_watchers_breaker_and_back_off_and_no_trial_is_left(
    story: list[tuple[Any, ...]],
) -> None:
    several = Several(3, POLICY)
    running: list[Running] = []
    now = 1000.0
    for kind, *what in story:
        worker = several.workers.get(what[0]) if kind in ("ask", "read", "hear", "kill") else None
        if kind == "ask" and worker is not None:
            permit = health(worker).admit(now, streamed=True, force=what[1])
            if permit is not None:
                running.append(Running(what[0], permit))
        elif kind in ("answer", "fail", "end") and running:
            one = running[what[0] % len(running)]
            if kind == "answer":
                one.permit.succeeded(now)
                continue
            running.remove(one)
            if kind == "fail":
                one.permit.failed(what[1], now)
            else:
                one.permit.released()
        elif kind == "read" and worker is not None and worker.up:
            several.read(what[0])
        elif kind == "hear" and worker is not None and worker.down:
            worker.hear()
        elif kind == "tell":
            several.tell()
        elif kind == "wait":
            now += what[0]
        elif kind == "kill" and worker is not None and len(several.workers) > 1:
            several.kill(what[0])
            running = [one for one in running if one.worker != what[0]]
    several.settle()
    for worker in several.workers.values():
        assert states(worker) == states(several)
    for one in running:
        one.permit.released()
    several.settle()
    for processes in (several, *several.workers.values()):
        assert not health(processes).breaker.tried
        assert not health(processes).back_off.tried


def test_a_wait_that_one_worker_was_told_holds_for_all_and_one_of_them_finds_out_when_it_is_over() -> None:
    several = Several(2, POLICY)
    several.settle()
    first, second = several.workers.values()
    permit = health(first).admit(10.0, streamed=True)
    assert permit is not None
    permit.failed(UpstreamStatus(429, retry_after_s=5.0), 10.0)
    several.settle()
    for worker in (first, second):
        assert health(worker).state(12.0) == "backing_off"
        assert health(worker).admit(12.0, streamed=True) is None
    later = 10.0 + 5.0
    trials = []
    # Both ask, again and again, for two turns of each.
    for step in range(16):
        for worker in (first, second):
            permit = health(worker).admit(later + step / 20, streamed=True)
            if permit is not None:
                trials.append(permit)
            several.settle()
    assert len(trials) == 1
    trials[0].succeeded(later + 1)
    several.settle()
    for worker in (first, second):
        assert health(worker).state(later + 1) == "closed"
        assert health(worker).admit(later + 1, streamed=True) is not None
