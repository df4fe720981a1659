"""What a box's own counts, its metrics and its times to first token come to: whether it is too busy for a request."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.box_load import SILENT_AT_FIRST, BoxLoad
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import EnginePace
from gateway.fleet.saturation import DWELL_S
from gateway.fleet.slot_model import SlotModel

BUDGET_S = 2.0


@dataclass
class Attempt:
    adapter: str | None
    streamed: bool
    began: float
    silent_before: int
    in_flight: int


def sent(load: BoxLoad, adapter: str | None = "acme_v3", *, streamed: bool = True, now: float = 0.0) -> Attempt:
    return Attempt(adapter, streamed, now, *load.began(adapter, streamed=streamed))


def answered(load: BoxLoad, attempt: Attempt, now: float) -> None:
    load.first_content(attempt, now)
    load.attempts.answered()


def queue(at_s: float, waiting: float, finished: float = 0.0) -> EngineReading:
    return EngineReading(
        at_s, running=8, waiting_capacity=waiting, ttft_count=finished, requests_finished_total=finished
    )


def test_of_a_box_of_which_nothing_was_seen_nobody_is_turned_away() -> None:
    load = BoxLoad(8)
    for _ in range(100):
        assert not load.saturated("acme_v3", BUDGET_S, 0)
        sent(load)


def test_a_queue_that_the_box_tells_of_turns_away_who_would_wait_too_long_and_nobody_else() -> None:
    load = BoxLoad(8)
    load.read(queue(0.0, 50, finished=100))
    load.read(queue(1.0, 50, finished=110))
    assert load.saturated("acme_v3", BUDGET_S, 1.0), "50 wait, 10 a second leave"
    assert not load.saturated("acme_v3", 10.0, 1.0)


def test_it_takes_a_low_estimate_for_a_while_to_be_asked_again_though_nobody_asks_meanwhile() -> None:
    load = BoxLoad(8)
    load.read(queue(0.0, 50, finished=100))
    load.read(queue(1.0, 50, finished=110))
    assert load.saturated("acme_v3", BUDGET_S, 1.0)
    load.read(queue(2.0, 0, finished=160))
    assert load.saturated("acme_v3", BUDGET_S, 2.1)
    load.read(queue(2.0 + DWELL_S, 0, finished=170))
    assert not load.saturated("acme_v3", BUDGET_S, 2.0 + DWELL_S)


def test_to_look_does_not_change_what_is_looked_at() -> None:
    load = BoxLoad(8)
    load.read(queue(0.0, 50, finished=100))
    load.read(queue(1.0, 50, finished=110))
    assert load.saturation("acme_v3", BUDGET_S, 1.0).saturated
    load.read(queue(1.1, 0, finished=111))
    assert not load.saturated("acme_v3", BUDGET_S, 1.1), "nobody was turned away yet"


def test_a_box_that_was_slow_and_gets_nothing_any_more_is_found_fast_by_a_probe() -> None:
    load = BoxLoad(8)
    for number in range(10):
        answered(load, sent(load, now=number), number + 9.0)
    assert load.saturated("acme_v3", BUDGET_S, 19.0)
    load.probed(0.05)
    assert load.saturated("acme_v3", BUDGET_S, 19.0)
    for now in range(20, 60):
        load.saturated("acme_v3", BUDGET_S, now)
    assert not load.saturated("acme_v3", BUDGET_S, 60.0)


def test_a_plain_request_is_not_silent_as_nobody_sees_when_its_answer_begins() -> None:
    load = BoxLoad(8)
    sent(load, streamed=False)
    assert (load.attempts.total, load.attempts.silent) == (1, 0)


def test_an_adapter_without_a_slot_waits_and_those_that_hold_one_do_not() -> None:
    load = BoxLoad(2)
    for adapter in ("hot_a", "hot_b"):
        for _ in range(3):
            answered(load, sent(load, adapter), 0.1)
    assert load.saturated("cold", BUDGET_S, 0.2)
    assert not load.saturated("hot_a", BUDGET_S, 0.2)
    assert not load.saturated(None, BUDGET_S, 0.2)


# The model of the slots.


def nobody(adapter: str) -> int:
    return 0


@given(st.integers(1, 6), st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_the_slots_hold_the_adapters_that_were_used_last(slots: int, uses: list[str]) -> None:
    model = SlotModel(slots)
    for number, adapter in enumerate(uses):
        held = model.held
        assert model.use(adapter, nobody) is (adapter not in held)
        latest = dict.fromkeys(reversed(uses[: number + 1]))
        assert list(reversed(model.held)) == list(latest)[:slots]
    if len(set(uses)) <= slots:
        assert model.swaps == len(set(uses)), "each was brought in once"


def test_an_adapter_that_runs_keeps_its_slot() -> None:
    model = SlotModel(2)
    for adapter in ("runs", "idle", "new"):
        model.use(adapter, lambda name: name == "runs")
    assert model.held == ("runs", "new")


def test_how_many_may_be_silent_follows_a_reading_whichever_process_made_it() -> None:
    here, elsewhere = BoxLoad(8), BoxLoad(8)
    reading = EngineReading(at_s=100.0)
    for load in (here, elsewhere):
        for number in range(200):
            load.ttfts.observe(0.1 + 0.05 * (number % 5), silent=number % 5, now=99.0)
    here.read(reading)
    elsewhere.follow_reading(reading, EnginePace())
    assert here.silent_limit == elsewhere.silent_limit != SILENT_AT_FIRST
