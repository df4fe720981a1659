"""A modelled engine tells tokens when its model's steps end, and says of itself what vLLM says, when vLLM says it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.simulator.engine import Pace
from backend.simulator.engine_model import EngineModel
from backend.simulator.modelled_engine import ModelledEngine, ModelledFlight
from backend.simulator.steps import Until
from tests.simulator.engine_scripts import DYADIC
from tests.simulator.virtual_time import VirtualTime

STEP_S = DYADIC.step_s + DYADIC.per_sequence_s + DYADIC.per_adapter_s
"""Of one decoding sequence with an adapter."""


class House:
    """An engine with adapters a, b and c in virtual time."""

    def __init__(self, *, max_queued: int | None = None, **limits: Any) -> None:
        self.time = VirtualTime()
        self.engine = ModelledEngine(
            EngineModel(DYADIC, **{"max_loras": 2, "max_cpu_loras": 4, **limits}),
            base="base",
            adapters={name: f"/adapters/{name}" for name in "abc"},
            pace=Pace(),
            max_queued=max_queued,
            max_model_len=1024,
            clock=self.time.clock,
            wall=lambda: 1e9 + self.time.now,
        )
        self.engine.run_with(self.time.call_later)

    def ask(self, model: str, tokens: int = 8, **more: Any) -> ModelledFlight:
        """A request of 16 prompt tokens that ends at its limit."""
        flight = self.engine.admit(model, prompt_tokens=16, tokens=tokens, **{"finish": "length", **more})
        assert flight is not None
        return flight

    def metrics(self) -> dict[str, float]:
        """All that it says, by name and the labels that are not always the same."""
        return {
            " ".join(
                [s.name.removeprefix("vllm:"), *(v for k, v in s.labels.items() if k not in ("model_name", "engine"))]
            ): s.value
            for family in text_string_to_metric_families(self.engine.render_metrics(0.0).decode())
            for s in family.samples
        }


def told(flight: ModelledFlight) -> int:
    """Tokens that the script of an answer may have by now."""
    return flight.signal.count


def is_over(wait: Until) -> bool:
    """Whether what had to be waited for has happened."""
    return wait.signal.count >= wait.count


def test_tokens_come_one_a_step() -> None:
    house = House()
    flight = house.ask("c", tokens=4)
    prefill_s = DYADIC.step_s + DYADIC.per_adapter_s + 16 / DYADIC.prefill_tokens_per_s
    house.time.run(prefill_s)
    assert told(flight) == 1
    for count in (2, 3, 4):
        house.time.run(STEP_S * 0.9)
        assert told(flight) == count - 1
        house.time.run(STEP_S * 0.1)
        assert told(flight) == count
    assert house.metrics()["generation_tokens_total"] == 4
    assert house.metrics()["request_success_total length"] == 1
    assert house.metrics()["num_requests_running"] == 0


def test_late_timers_do_not_slow_the_model_down() -> None:
    house = House()
    flight = house.ask("c", tokens=200)
    house.engine._call_later = lambda seconds, what: house.time.call_later(seconds + 0.001, what)
    house.engine._arm()
    house.time.run(STEP_S * 150)
    assert told(flight) >= 145


def test_an_answer_that_ends_by_itself_has_an_end_that_is_no_token() -> None:
    house = House()
    flight = house.ask("c", tokens=4, finish="stop")
    house.time.run(1.0)
    assert told(flight) == flight.wanted == 5
    assert house.metrics()["generation_tokens_total"] == 4


def test_all_choices_are_told_together() -> None:
    house = House(max_num_seqs=1)
    flight = house.ask("c", tokens=3, sequences=2)
    house.time.run(2 * STEP_S)
    assert told(flight) == 0, "the second choice has not begun"
    house.time.run(1.0)
    assert told(flight) == 3
    assert house.metrics()["request_success_total length"] == 1
    assert house.metrics()["request_generation_tokens_sum"] == 6


def test_an_adapter_without_a_slot_shows_as_deferred_but_not_in_the_lora_metric() -> None:
    house = House(max_loras=1)
    house.ask("a", tokens=50)
    cold = house.ask("b")
    house.time.run(0.1)
    seen = house.metrics()
    assert (seen["num_requests_running"], seen["num_requests_waiting"]) == (1, 1)
    assert (seen["num_requests_waiting_by_reason deferred"], seen["num_requests_waiting_by_reason capacity"]) == (1, 0)
    assert "lora_requests_info 1 a a" in seen
    assert not any("b" in name.split()[1:] for name in seen if "lora" in name)
    house.time.run(5.0)
    assert told(cold) == 8
    seen = house.metrics()
    assert seen["lora_requests_info 1  "] > seen["lora_requests_info 1 b b"] > seen["lora_requests_info 1 a a"]


def test_the_gauges_are_those_of_the_last_step() -> None:
    house = House()
    assert house.metrics()["num_requests_running"] == 0
    house.ask("c", tokens=50)
    assert house.metrics()["num_requests_running"] == 0, "no step has ended"
    house.time.run(0.05)
    assert house.metrics()["num_requests_running"] == 1
    assert house.metrics()["kv_cache_usage_perc"] > 0


def test_while_it_hangs_nothing_moves_and_the_metrics_are_stale() -> None:
    house = House()
    flight = house.ask("c", tokens=50)
    house.time.run(0.1)
    before, count = house.metrics(), told(flight)
    house.engine.hang(True)
    other = house.ask("a")
    house.time.run(60.0)
    assert (told(flight), told(other), house.metrics()) == (count, 0, before)
    house.engine.hang(False)
    house.time.run(1.0)
    assert (told(flight), told(other)) == (50, 8)
    # The engine's own time stood still: the hang is in nobody's latency.
    assert house.metrics()["e2e_request_latency_seconds_sum"] < 2.0


def test_a_process_that_was_stopped_did_not_run_meanwhile() -> None:
    house = House()
    flight = house.ask("c", tokens=50)
    house.time.run(0.1)
    count = told(flight)
    house.time.now += 60.0
    late = house.ask("a")
    house.time.run(STEP_S)
    assert count <= told(flight) <= count + 2
    house.time.run(1.0)
    assert (told(flight), told(late)) == (50, 8)


def test_a_client_that_left_gives_all_back_and_is_in_no_counter_of_finished_ones() -> None:
    house = House(max_loras=1)
    hot, cold = house.ask("a", tokens=500), house.ask("b")
    house.time.run(0.1)
    hot.leave()
    seen = house.metrics()
    assert (seen["num_requests_running"], seen["kv_cache_usage_perc"]) == (0, 0)
    assert sum(value for name, value in seen.items() if name.startswith("request_success_total")) == 0
    house.time.run(1.0)
    assert told(cold) == 8
    waits = house.ask("c"), house.ask("c")
    waits[0].leave()
    house.time.run(1.0)
    assert (told(waits[0]), told(waits[1])) == (0, 8)
    assert house.engine.running == 2, "those that were told everything, but not given back"


def test_a_deferred_request_that_is_given_up_is_no_longer_counted_as_deferred() -> None:
    house = House(max_loras=1)
    house.ask("a", tokens=500)
    cold = house.ask("b")
    house.time.run(0.1)
    cold.leave()
    assert house.metrics()["num_requests_waiting_by_reason deferred"] == 0
    assert house.engine.model.waiting == 0


def test_the_queue_limit_counts_choices() -> None:
    house = House(max_queued=3)
    house.ask("a", sequences=2)
    assert house.engine.admit("a", prompt_tokens=16, tokens=8, finish="length", sequences=2) is None
    house.ask("a")
    assert house.engine.admit("a", prompt_tokens=16, tokens=8, finish="length") is None
    assert house.metrics()["admission_rejections_total max_num_queued_reqs"] == 2
    house.time.run(1.0)
    house.ask("a")


def test_to_load_an_adapter_keeps_everybody_waiting() -> None:
    house = House()
    load_s = DYADIC.disk_load_s + DYADIC.swap_s
    assert house.engine.load("d", "/adapters/d") == load_s
    flight = house.ask("c")
    house.time.run(load_s)
    assert told(flight) == 0
    house.time.run(1.0)
    assert told(flight) == 8


def test_a_reloaded_adapter_takes_a_second_place_in_the_pool() -> None:
    house = House()
    house.engine.unload("a")
    house.engine.load("a", "/adapters/a-2")
    assert house.engine.state()["pooled"] == ["a", "b", "c", "a#2"]
    flight = house.ask("a")
    house.time.run(1.0)
    assert told(flight) == 8
    assert house.engine.state()["disk_loads"] == 4, "of all four, at their loading"


@pytest.mark.parametrize(("level", "gauge"), [(0, None), (1, "weights_offloaded"), (2, "discard_all")])
def test_asleep_it_takes_requests_and_answers_them_when_it_wakes(level: int, gauge: str | None) -> None:
    house = House()
    running = house.ask("a", tokens=500)
    house.time.run(0.1)
    assert is_over(house.engine.sleep(level, "abort"))
    assert running.aborted
    assert told(running) == running.wanted
    assert house.engine.is_sleeping
    asked = house.ask("a")
    house.time.run(10.0)
    assert told(asked) == 0
    seen = house.metrics()
    assert seen["request_success_total abort"] == 1
    states = {name.split()[1]: value for name, value in seen.items() if name.startswith("engine_sleep_state")}
    assert states == {state: float(state == gauge) for state in ("awake", "weights_offloaded", "discard_all")}
    assert house.engine.wake_up(None)
    house.time.run(1.0)
    assert told(asked) == 8
    assert not house.engine.is_sleeping
    assert house.metrics()["engine_sleep_state awake"] == 1


def test_it_may_finish_what_runs_before_it_sleeps_or_keep_it_for_later() -> None:
    house = House()
    running = house.ask("a", tokens=20)
    house.time.run(0.02)
    asleep = house.engine.sleep(1, "wait")
    assert not is_over(asleep)
    house.time.run(1.0)
    assert is_over(asleep)
    assert told(running) == 20
    house.engine.wake_up(None)

    kept = house.ask("a", tokens=20)
    house.time.run(0.05)
    count = told(kept)
    assert is_over(house.engine.sleep(1, "keep"))
    house.time.run(5.0)
    # The step that was running has ended.
    assert told(kept) <= count + 1
    house.engine.wake_up(None)
    house.time.run(1.0)
    assert told(kept) == 20


def test_it_wakes_when_all_its_parts_are_awake() -> None:
    engine = House().engine
    engine.sleep(1, "abort")
    assert not engine.wake_up(["weights"])
    assert not engine.wake_up(["nonsense"])
    assert engine.is_sleeping
    assert engine.wake_up(["kv_cache"])
    assert not engine.is_sleeping
    engine.sleep(0, "abort")
    assert engine.wake_up(["scheduling"])


def test_preemptions_are_counted() -> None:
    house = House(kv_tokens=128)
    flights = [house.ask("a", tokens=100) for _ in range(2)]
    house.time.run(10.0)
    assert [told(flight) for flight in flights] == [100, 100]
    assert house.metrics()["num_preemptions_total"] >= 1
