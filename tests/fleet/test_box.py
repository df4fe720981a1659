"""A box: which failure moves which breaker, and that everything counted is counted back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BoxEjected,
    ConnectError,
    ConnectionLost,
    PoolExhausted,
    ProtocolError,
    Reason,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.box import Box
from gateway.fleet.duty import RAMP_DOUBLES_S, RAMP_FIRST, RAMP_S
from gateway.fleet.permit import Permit
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import BoxSpec
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from tests.fleet.token_box import Watchers

SPEC = BoxSpec("a100-a", "main", "http://10.0.0.11:8000/gpu", 8, 64)


def a_box(watchers: Watchers, spec: BoxSpec = SPEC) -> Box:
    return Box(
        spec,
        Pool(Origin.parse(spec.url)),
        base_model="base",
        metrics=watchers.metrics,
        alarms=watchers.alarms,
        events=watchers.events,
    )


@pytest.fixture
def box(watchers: Watchers) -> Box:
    return a_box(watchers)


def let_in(box: Box, adapter: str | None = "acme_v3", now: float = 0.0, *, force: bool = False) -> Permit:
    permit = box.admit(adapter, now, force=force)
    assert permit is not None
    return permit


def probed(box: Box, now: float) -> Permit:
    permit = box.admit(None, now, probe=True)
    assert permit is not None
    return permit


def token_comes(box: Box, now: float) -> None:
    with probed(box, now) as probe:
        probe.succeeded(now)


def fail(box: Box, error: UpstreamError, adapter: str | None = "acme_v3", now: float = 0.0) -> None:
    let_in(box, adapter, now).failed(error, now)


def test_the_head_of_a_request_names_host_path_and_key_and_leaves_the_length_open(watchers: Watchers) -> None:
    spec = BoxSpec("a", "main", "http://10.0.0.11:8000/gpu", 8, 64, api_key="box-key")
    box = a_box(watchers, spec)
    assert box.head("/v1/completions") == (
        b"POST /gpu/v1/completions HTTP/1.1\r\n"
        b"host: 10.0.0.11:8000\r\n"
        b"content-type: application/json\r\n"
        b"accept-encoding: identity\r\n"
        b"authorization: Bearer box-key\r\n"
    )
    assert box.head("/v1/completions") is box.head("/v1/completions")


def test_without_a_key_no_authorization_is_sent(box: Box) -> None:
    assert b"authorization" not in box.head("/v1/completions")


def test_a_box_whose_key_is_not_set_is_never_asked(watchers: Watchers) -> None:
    box = a_box(watchers, BoxSpec("a", "main", "http://a", 8, 64, unavailable="${BOX_KEY} is not set"))
    assert box.condition("acme_v3", 0) is Reason.BACKEND_DOWN
    assert box.admit("acme_v3", 0, force=True) is None
    assert box.in_flight == 0


def test_a_refused_connection_opens_the_breaker_at_once(box: Box, watchers: Watchers) -> None:
    fail(box, ConnectError("refused"))
    assert box.condition("acme_v3", 0) is Reason.CIRCUIT_OPEN
    assert box.condition(None, 0) is Reason.CIRCUIT_OPEN
    assert box.admit("acme_v3", 0) is None
    assert watchers.metrics.breaker_transitions.value("a100-a", "open") == 1
    assert watchers.events.since(0)[-1].fields == {"box": "a100-a", "state": "open", "why": "refused"}


def test_a_box_that_stays_down_is_told_of_once_and_again_when_it_is_back(box: Box, watchers: Watchers) -> None:
    now = 0.0
    for _ in range(10):
        probed(box, now).failed(ConnectError("refused"), now)
        now += 8
    token_comes(box, now)
    states = [event.fields["state"] for event in watchers.events.since(0)]
    assert states == ["open", "closed"]
    assert watchers.metrics.breaker_transitions.value("a100-a", "half_open") == 10


def test_a_missing_adapter_ejects_only_that_pair_and_alerts(box: Box, watchers: Watchers) -> None:
    fail(box, UpstreamStatus(404), "acme_v3")
    assert box.condition("acme_v3", 0) is Reason.ADAPTER_UNAVAILABLE
    assert box.condition("globex_v1", 0) is None
    assert box.condition(None, 0) is None
    assert box.pairs.missing() == {"acme_v3": 1.0}
    assert watchers.alarms.is_on("adapter_missing", "a100-a/acme_v3")
    let_in(box, "acme_v3", 1).succeeded(1)
    assert box.condition("acme_v3", 1) is None
    assert box.pairs.missing() == {}
    assert not watchers.alarms.is_on("adapter_missing", "a100-a/acme_v3")


def test_a_missing_adapter_is_asked_for_by_one_trial_at_a_time_ever_less_often(box: Box) -> None:
    fail(box, UpstreamStatus(404))
    trial = let_in(box, now=1)
    assert box.admit("acme_v3", 1) is None
    trial.failed(UpstreamStatus(404), 1)
    assert box.condition("acme_v3", 2.9) is Reason.ADAPTER_UNAVAILABLE
    assert box.condition("acme_v3", 3) is None


def test_many_answers_of_404_at_once_are_one_ejection(box: Box, watchers: Watchers) -> None:
    permits = [let_in(box) for _ in range(5)]
    for permit in permits:
        permit.failed(UpstreamStatus(404), 0)
    assert box.pairs.missing() == {"acme_v3": 1.0}
    assert watchers.event_kinds() == ["alarm_on"]


@pytest.mark.parametrize(
    "error", [UpstreamStatus(429), UpstreamStatus(503, b"The engine is currently busy"), PoolExhausted("ours")]
)
def test_load_and_our_own_limits_move_no_breaker(box: Box, error: UpstreamError) -> None:
    for _ in range(10):
        fail(box, error)
    assert box.condition("acme_v3", 0) is None


def test_a_clients_mistake_is_a_sign_of_life(box: Box) -> None:
    fail(box, ConnectError("refused"))
    probed(box, 1).failed(UpstreamStatus(400), 1)
    assert box.condition("acme_v3", 1) is None
    assert box.last_life == 1


def test_three_silences_open_the_breaker_and_it_does_not_fail_fast(box: Box) -> None:
    for adapter in ("acme_v3", "globex_v1", "initech_v1"):
        assert box.condition("acme_v3", 0) is None
        fail(box, UpstreamTimeout("nothing within 2 s"), adapter)
    assert box.condition("acme_v3", 0) is Reason.CIRCUIT_OPEN
    assert not box.fails_fast


@pytest.mark.parametrize("error", [UpstreamTimeout("silence"), UpstreamStatus(500), ProtocolError("html")])
def test_what_only_one_adapter_runs_into_keeps_only_that_adapter_away(box: Box, error: UpstreamError) -> None:
    for _ in range(3):
        assert box.condition("acme_v3", 0) is None
        fail(box, error)
    assert box.condition("acme_v3", 0) is Reason.CIRCUIT_OPEN
    assert box.condition("globex_v1", 0) is None
    assert box.pairs.missing() == {}
    let_in(box, "acme_v3", 1).succeeded(1)
    assert box.condition("acme_v3", 1) is None


def test_the_late_failures_of_an_outage_are_not_held_against_the_adapters(box: Box) -> None:
    late = [let_in(box) for _ in range(5)]
    for _ in range(3):
        fail(box, ConnectionLost("reset"))
    for permit in late:
        permit.failed(UpstreamStatus(500), 0)
    token_comes(box, 1)
    assert box.condition("acme_v3", 1) is None
    assert box.pairs.failing() == {}


def test_a_connection_that_breaks_off_is_the_boxs_fault_whoever_asked(box: Box) -> None:
    for _ in range(3):
        fail(box, ConnectionLost("reset"))
    assert box.condition("globex_v1", 0) is Reason.CIRCUIT_OPEN


@pytest.mark.parametrize("error", [ConnectError("refused"), BoxEjected("silence")])
def test_a_box_that_was_away_gets_no_customer_before_a_token_and_then_more_from_second_to_second(
    box: Box, error: UpstreamError
) -> None:
    if isinstance(error, BoxEjected):
        box.eject(0, "two probes without an answer")
    else:
        fail(box, error)
    assert box.condition("acme_v3", 100) is Reason.CIRCUIT_OPEN
    token_comes(box, 100)
    assert not box.has_its_share(100)
    for _ in range(RAMP_FIRST):
        let_in(box, now=100)
    assert box.has_its_share(100)
    assert box.condition("acme_v3", 100) is None, "where no other box is left"
    later = 100 + RAMP_DOUBLES_S
    assert not box.has_its_share(later)
    for _ in range(RAMP_FIRST):
        let_in(box, now=later)
    assert box.has_its_share(later)
    assert not box.has_its_share(100 + RAMP_S)


def test_a_box_that_knows_no_base_by_that_name_is_up_all_the_same(box: Box) -> None:
    fail(box, ConnectError("refused"))
    probed(box, 1).failed(UpstreamStatus(404), 1)
    let_in(box, now=1).succeeded(1)
    assert box.condition("acme_v3", 1) is None


def test_a_drained_box_gets_nothing_new_finishes_what_runs_and_comes_back_in_a_ramp(
    box: Box, watchers: Watchers
) -> None:
    running = let_in(box)
    box.drain()
    assert box.condition("acme_v3", 0) is Reason.FORCED
    assert box.condition(None, 0) is Reason.FORCED
    assert box.admit("acme_v3", 0, force=True) is None
    token_comes(box, 0)
    running.succeeded(1)
    running.released()
    assert box.in_flight == 0
    box.undrain(2)
    for _ in range(RAMP_FIRST):
        let_in(box, now=2)
    assert box.has_its_share(2)
    assert watchers.event_kinds() == ["box_drained", "box_undrained"]


def test_a_box_that_refuses_fails_fast_even_when_late_silences_come_in(box: Box) -> None:
    late = let_in(box)
    fail(box, ConnectError("refused"))
    late.failed(UpstreamTimeout("silence"), 0)
    assert box.fails_fast


def test_a_refused_key_opens_the_breaker_and_alerts_until_it_is_accepted(box: Box, watchers: Watchers) -> None:
    fail(box, UpstreamStatus(401))
    assert box.condition("acme_v3", 0) is Reason.CIRCUIT_OPEN
    assert watchers.alarms.is_on("box_unauthorized", "a100-a")
    let_in(box, now=1).succeeded(1)
    assert not watchers.alarms.is_on("box_unauthorized", "a100-a")


def test_a_last_resort_asks_in_spite_of_the_breaker_and_brings_the_box_back(box: Box) -> None:
    fail(box, ConnectError("refused"))
    let_in(box, now=0.1, force=True).succeeded(0.2)
    assert box.condition("acme_v3", 0.2) is None


def test_a_stream_counts_in_flight_until_it_ends_not_until_its_commit(box: Box) -> None:
    permit = let_in(box)
    permit.succeeded(0)
    assert box.in_flight == 1
    permit.released()
    permit.released()
    assert box.in_flight == 0


def test_a_stream_that_breaks_after_its_commit_counts_against_the_box(box: Box) -> None:
    permits = [let_in(box) for _ in range(3)]
    for permit in permits:
        permit.succeeded(0)
    for permit in permits:
        permit.failed(ProtocolError("end of file without a finish"), 1)
    assert box.condition("acme_v3", 1) is Reason.CIRCUIT_OPEN
    assert box.in_flight == 0


def test_an_adapters_trial_that_the_boxs_own_breaker_turns_away_gives_its_slot_back(box: Box) -> None:
    fail(box, UpstreamStatus(404))
    for _ in range(3):
        fail(box, ConnectionLost("reset"), "globex_v1", 0.5)
    assert box.admit("acme_v3", 1.2) is None
    let_in(box, "acme_v3", 2).succeeded(2)
    assert box.condition("acme_v3", 2) is None


def test_ejecting_a_box_ends_the_plain_attempts_that_wait_on_it(box: Box, watchers: Watchers) -> None:
    class Waits:
        error: UpstreamError | None = None

        def abort(self, error: UpstreamError) -> None:
            self.error = error
            box.pending.discard(self)

    attempts = [Waits(), Waits()]
    box.pending.update(attempts)
    box.eject(5, "two probes without an answer", silent=True)
    assert all(isinstance(attempt.error, BoxEjected) for attempt in attempts)
    assert box.condition("acme_v3", 5) is Reason.CIRCUIT_OPEN
    assert not box.fails_fast
    assert "box_ejected" in watchers.event_kinds()


def test_adapters_that_no_policy_names_are_forgotten_with_their_alarms(box: Box, watchers: Watchers) -> None:
    fail(box, UpstreamStatus(404), "acme_v3")
    fail(box, UpstreamStatus(404), "acme_v4")
    fail(box, UpstreamStatus(404), None)
    box.pairs.keep(frozenset({"acme_v4"}))
    assert box.pairs.missing().keys() == {"acme_v4", "(base)"}
    assert {alarm.subject for alarm in watchers.alarms.current()} == {"a100-a/acme_v4", "a100-a/(base)"}


def test_a_box_that_left_the_policy_leaves_no_alarm_and_raises_none(box: Box, watchers: Watchers) -> None:
    late = [let_in(box), let_in(box, "globex_v1")]
    fail(box, UpstreamStatus(404))
    fail(box, UpstreamStatus(401), "initech_v1")
    box.retire()
    late[0].failed(UpstreamStatus(401), 1)
    late[1].failed(UpstreamStatus(404), 1)
    assert watchers.alarms.current() == ()


ERRORS: list[UpstreamError] = [
    UpstreamStatus(404),
    UpstreamStatus(400),
    UpstreamStatus(401),
    UpstreamStatus(429),
    UpstreamStatus(500),
    ConnectError("refused"),
    UpstreamTimeout("silence"),
    PoolExhausted("ours"),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acme_v3", "globex_v1", None]),
            st.floats(0, 3),
            st.booleans(),
            st.sampled_from([*ERRORS, "succeeded", "released", "runs on"]),
        ),
        max_size=30,
    )
)
def test_whatever_happens_nothing_stays_in_flight_and_every_adapter_can_come_back(
    history: list[tuple[str | None, float, bool, UpstreamError | str]],
) -> None:
    metrics, events = GatewayMetrics(Registry()), Events(100)
    box = a_box(Watchers(Registry(), metrics, Alarms(metrics, events), events))
    now, running = 0.0, list[Permit]()
    for adapter, passes, force, end in history:
        now += passes
        may_be_asked = box.condition(adapter, now) is None
        permit = box.admit(adapter, now, force=force)
        assert (permit is not None) == (force or may_be_asked)
        if permit is None:
            continue
        running.append(permit)
        if isinstance(end, UpstreamError):
            permit.failed(end, now)
        elif end == "succeeded":
            permit.succeeded(now)
        elif end == "released":
            permit.released()
    for permit in running:
        permit.released()
    assert box.in_flight == 0
    token_comes(box, now)
    for adapter in ("acme_v3", "globex_v1", None):
        now += 8
        assert box.condition(adapter, now) is None
        permit = let_in(box, adapter, now)
        permit.succeeded(now)
        permit.released()
    assert all(box.condition(adapter, now) is None for adapter in ("acme_v3", "globex_v1", None))
