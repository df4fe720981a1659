"""A provider's health: what counts against it, what leaves it alone for a while, and what says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    Aborted,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorFrame,
    InternalFault,
    NameNotResolved,
    NotConfigured,
    PoolExhausted,
    ProtocolError,
    ShuttingDown,
    TLSError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.back_off import LONGEST_NAMED_S
from gateway.fleet.breaker import LONGEST_OPEN_S, THRESHOLD
from gateway.fleet.provider_health import (
    PLAIN_PATIENCE_S,
    STREAM_PATIENCE_S,
    ProviderBlame,
    ProviderHealth,
    ProviderPermit,
    ProviderState,
    provider_blame,
)

FAILURES: list[UpstreamError] = [
    ConnectError("refused"),
    ConnectTimeout("nobody"),
    NameNotResolved("no such host"),
    TLSError("expired"),
    ConnectionLost("reset"),
    ProtocolError("html"),
    Aborted("abort"),
    ErrorFrame("overloaded"),
    ErrorFrame("broken", status=500),
    UpstreamStatus(302),
    UpstreamStatus(402),
    UpstreamStatus(408),
    UpstreamStatus(500),
    UpstreamStatus(502),
    UpstreamStatus(503),
    UpstreamStatus(529),
]
NOTHING: list[UpstreamError] = [
    *(UpstreamStatus(status) for status in (400, 404, 405, 409, 413, 422)),
    ErrorFrame("not that model", status=404),
    PoolExhausted("full"),
    NotConfigured("no key"),
    InternalFault("a defect"),
    ShuttingDown("ending"),
]
LOAD: list[UpstreamError] = [
    UpstreamStatus(429),
    UpstreamStatus(429, retry_after_s=7.0),
    UpstreamStatus(503, retry_after_s=7.0),
    UpstreamStatus(529, retry_after_s=7.0),
    ErrorFrame("slow down", status=429),
]
REFUSALS: list[UpstreamError] = [UpstreamStatus(401), UpstreamStatus(403), ErrorFrame("no", status=401)]


def let_in(
    health: ProviderHealth, now: float = 0.0, *, streamed: bool = True, by_worker: bool = False, force: bool = False
) -> ProviderPermit:
    permit = health.admit(now, streamed=streamed, by_worker=by_worker, force=force)
    assert permit is not None
    return permit


def fail(health: ProviderHealth, error: UpstreamError, now: float = 0.0, *, times: int = THRESHOLD) -> None:
    for permit in [let_in(health, now) for _ in range(times)]:
        permit.failed(error, now)


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_three_failures_in_a_row_open_it(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    fail(health, error, times=THRESHOLD - 1)
    assert health.state(0) == "closed"
    fail(health, error, times=1)
    assert health.state(0) == "open"
    assert health.condition(0) == "circuit open"
    assert health.admit(0, streamed=True) is None


@pytest.mark.parametrize("error", NOTHING, ids=repr)
def test_mistakes_of_a_request_and_limits_of_our_own_move_nothing(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    fail(health, error, times=30)
    assert (health.state(0), health.condition(0), health.last_error) == ("closed", None, "")
    fail(health, UpstreamStatus(500))
    let_in(health, 1).failed(error, 1)
    assert health.state(1) == "half_open"
    assert health.condition(1) is None, "the slot of the trial came back"


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_one_refusal_of_our_key_opens_it_at_once(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    fail(health, error, times=1)
    assert health.state(0) == "open"


@pytest.mark.parametrize("error", [ConnectError("no worker"), ConnectionLost("the worker died")], ids=repr)
def test_connections_to_the_litellm_worker_are_no_providers(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    for _ in range(5):
        let_in(health, by_worker=True).failed(error, 0)
    assert health.state(0) == "closed"
    assert provider_blame(UpstreamStatus(502), by_worker=True) is ProviderBlame.FAILURE


@pytest.mark.parametrize("error", LOAD, ids=repr)
def test_load_is_no_failure_and_the_provider_is_left_alone(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    waits = 7.0 if isinstance(error, UpstreamStatus) and error.retry_after_s else 1.0
    fail(health, error, times=THRESHOLD)
    assert health.breaker.closed
    assert health.state(0) == "backing_off"
    assert health.retry_at == waits
    assert health.condition(waits - 0.01) == "it is busy"
    assert not health.is_last_resort(waits - 0.01), "not even where nothing else is left"
    assert health.admit(waits - 0.01, streamed=True, force=True) is None
    assert health.state(waits) == "half_open"
    trial = let_in(health, waits)
    assert health.condition(waits) == "it is busy"
    assert health.is_last_resort(waits)
    trial.succeeded(waits)
    assert (health.state(waits), health.retry_at) == ("closed", None)


def test_a_stream_that_breaks_after_its_commit_counts() -> None:
    health = ProviderHealth("hosted")
    for _ in range(10):
        assert health.state(0) == "closed"
        permit = let_in(health)
        permit.succeeded(0)
        permit.progressed(0)
        permit.failed(ConnectionLost("reset"), 0)
    assert health.state(0) == "open", "half of twenty"


def test_a_client_that_hangs_up_moves_nothing_and_gives_both_slots_back() -> None:
    health = ProviderHealth("hosted")
    fail(health, UpstreamStatus(429), times=1)
    fail_at = 1.0
    running = [let_in(health, fail_at, force=True) for _ in range(THRESHOLD)]
    for permit in running:
        permit.failed(UpstreamStatus(500), fail_at)
    assert health.state(1) == "open"
    with let_in(health, 2):
        assert health.condition(2) is not None
    assert health.condition(2) is None


@pytest.mark.parametrize(("streamed", "patience_s"), [(True, STREAM_PATIENCE_S), (False, PLAIN_PATIENCE_S)])
def test_silence_for_less_than_an_answer_takes_is_one_customers_deadline(streamed: bool, patience_s: float) -> None:
    health = ProviderHealth("hosted")
    for _ in range(10):
        let_in(health, streamed=streamed).failed(UpstreamTimeout("silence"), patience_s - 0.01)
    assert health.breaker.closed
    for _ in range(THRESHOLD):
        let_in(health, streamed=streamed).failed(UpstreamTimeout("silence"), patience_s)
    assert not health.breaker.closed


def test_an_open_one_is_the_last_resort_if_it_fails_fast() -> None:
    health = ProviderHealth("hosted")
    fail(health, ConnectError("refused"))
    assert health.is_last_resort(0)
    let_in(health, 0, force=True).failed(UpstreamTimeout("silence"), 0.5)
    assert not health.is_last_resort(0.5), "it has become silent since"
    assert health.is_last_resort(1), "a trial is due"
    let_in(health, 1).failed(ConnectError("refused"), 1)
    assert health.is_last_resort(1)


@pytest.mark.parametrize("error", [UpstreamTimeout("silence"), ConnectTimeout("nobody")])
def test_one_that_was_silent_is_no_last_resort(error: UpstreamError) -> None:
    health = ProviderHealth("hosted")
    for permit in [let_in(health) for _ in range(THRESHOLD)]:
        permit.failed(error, 3)
    assert not health.is_last_resort(3)
    let_in(health, 3, force=True).succeeded(3)
    assert health.state(3) == "closed", "one success, however it came about"


def test_each_change_is_told_once() -> None:
    told: list[ProviderState] = []
    health = ProviderHealth("hosted", told.append)
    fail(health, UpstreamStatus(429, retry_after_s=2.0))
    let_in(health, 2).succeeded(2)
    fail(health, UpstreamStatus(500), now=2)
    let_in(health, 3).succeeded(3)
    assert told == ["backing_off", "backing_off", "backing_off", "closed", "open", "half_open", "closed"]
    health.retire()
    fail(health, UpstreamStatus(500), now=3)
    assert len(told) == 7


answers = st.sampled_from([*FAILURES, *NOTHING, *LOAD, *REFUSALS, UpstreamTimeout("silence"), None])


@given(st.lists(st.tuples(answers, st.floats(0, 70), st.booleans(), st.booleans(), st.booleans()), max_size=40))
def test_whatever_happens_it_is_asked_again_within_its_bounds_and_never_while_it_is_to_be_left_alone(
    history: list[tuple[UpstreamError | None, float, bool, bool, bool]],
) -> None:
    health = ProviderHealth("hosted")
    running: list[ProviderPermit] = []
    now = 0.0
    for error, later, force, goes_on, ends_first in history:
        waits, condition = health.back_off.waits(now), health.condition(now)
        permit = health.admit(now, streamed=True, force=force)
        assert (permit is not None) == (condition is None or (force and not waits))
        assert not (waits and health.is_last_resort(now))
        now += later
        if ends_first and running:
            running.pop(0).released()
        if permit is None:
            continue
        if goes_on:
            running.append(permit)
        elif error is None:
            permit.succeeded(now)
            permit.released()
        else:
            permit.failed(error, now)
        assert (health.retry_at or now) <= now + max(LONGEST_NAMED_S, LONGEST_OPEN_S)
    for permit in running:
        permit.released()
    assert health.condition(now + LONGEST_NAMED_S) is None, "a slot was lost"
