"""Whatever became of a box, it is decided in one place whether it may be asked, and an operator is told why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConnectError, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.fleet.obstacle import Obstacle, in_words
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import BoxSpec
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool

ERRORS: dict[str, UpstreamError] = {
    "404": UpstreamStatus(404),
    "500": UpstreamStatus(500),
    "401": UpstreamStatus(401),
    "refused": ConnectError("refused"),
    "silent": UpstreamTimeout("silence"),
}
ADAPTERS = ("acme_v3", "globex_v1", None)
DEEDS = st.one_of(
    st.sampled_from(["drain", "undrain", "eject", "wait"]),
    st.tuples(st.sampled_from(["ok", *ERRORS]), st.integers(0, 2)),
)


def a_box(*, unavailable: str | None = None) -> Box:
    metrics, events = GatewayMetrics(Registry()), Events(100)
    spec = BoxSpec("a", "main", "http://10.0.0.11:8000", 8, 64, unavailable=unavailable)
    return Box(
        spec,
        Pool(Origin.parse(spec.url)),
        base_model="base",
        metrics=metrics,
        alarms=Alarms(metrics, events),
        events=events,
    )


def fail(box: Box, error: UpstreamError, adapter: str | None, now: float = 0.0) -> None:
    permit = box.admit(adapter, now, force=True)
    assert permit is not None
    permit.failed(error, now)


def told(box: Box, now: float, adapter: str | None = "acme_v3") -> str:
    obstacle = box.obstacle(adapter, now)
    assert obstacle is not None
    assert box.condition(adapter, now) is obstacle.reason
    return in_words(obstacle, box, adapter, now)


def test_each_obstacle_has_its_words() -> None:
    assert told(a_box(unavailable="BOX_KEY is not set"), 0.0) == "it is not configured: BOX_KEY is not set"
    box = a_box()
    fail(box, UpstreamStatus(404), "acme_v3")
    assert told(box, 0.25) == "it said that it does not have the adapter; it is asked again in 0.8 s"
    box = a_box()
    for _ in range(3):
        fail(box, UpstreamStatus(500), "acme_v3")
    assert told(box, 0.25) == "the adapter fails there; it is asked again in 0.8 s"
    box = a_box()
    for _ in range(3):
        fail(box, UpstreamStatus(500), None)
    assert told(box, 0.5) == "its circuit is open (status 500); it is tried again in 0.5 s"
    box = a_box()
    fail(box, ConnectError("refused"), None)
    assert told(box, 60.0) == "it was away (refused), and has shown no token since"
    box.drain()
    assert told(box, 60.0) == "an operator has drained it on this gateway"


def test_an_adapter_that_it_once_lacked_is_not_why_a_box_that_is_away_is_not_asked() -> None:
    box = a_box()
    fail(box, UpstreamStatus(404), "acme_v3")
    fail(box, ConnectError("refused"), None)
    assert told(box, 0.5).startswith("it said that it does not have the adapter")
    assert told(box, 10.0) == "it was away (refused), and has shown no token since"


def test_a_trial_that_is_being_made_is_told_as_one() -> None:
    box = a_box()
    for _ in range(3):
        fail(box, UpstreamStatus(500), None)
    trial = box.admit(None, 2.0)
    assert trial is not None
    assert told(box, 2.0) == "its circuit is open (status 500); it is tried again by one request at a time"
    trial.released()


@pytest.mark.parametrize("unavailable", [None, "BOX_KEY is not set"])
@given(deeds=st.lists(DEEDS, max_size=12))
def test_whatever_happened_a_box_that_may_not_be_asked_can_say_why(
    unavailable: str | None, deeds: list[str | tuple[str, int]]
) -> None:
    box, now = a_box(unavailable=unavailable), 0.0
    seen: set[Obstacle] = set()
    for deed in deeds:
        match deed:
            case "drain":
                box.drain()
            case "undrain":
                box.undrain(now)
            case "eject":
                box.eject(now, "two probes in a row without an answer")
            case "wait":
                now += 0.6
            case (how, number) if (permit := box.admit(ADAPTERS[number], now, force=True)) is not None:
                if how == "ok":
                    permit.succeeded(now)
                    permit.released()
                else:
                    permit.failed(ERRORS[how], now)
        for adapter in ADAPTERS:
            if (obstacle := box.obstacle(adapter, now)) is not None:
                seen.add(obstacle)
                assert told(box, now, adapter)
            else:
                assert box.condition(adapter, now) is None
                permit = box.admit(adapter, now)
                assert permit is not None, "nothing is in the way"
                permit.released()
    assert (Obstacle.NOT_CONFIGURED in seen) == bool(unavailable and deeds)
