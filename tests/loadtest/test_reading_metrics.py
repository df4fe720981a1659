"""What happened between two looks at metrics."""

from __future__ import annotations

from backend.loadtest.scrape import Look, between, counters

GATEWAY = """\
# HELP failsoft_box_predicted_lora_swaps_total Adapters.
# TYPE failsoft_box_predicted_lora_swaps_total counter
failsoft_box_predicted_lora_swaps_total{box="a"} %d
failsoft_box_predicted_lora_swaps_total{box="b"} 7
failsoft_box_lora_slots_held{box="c"} 1
failsoft_in_flight 3
"""
BOX = 'vllm:generation_tokens_total{model_name="m",engine="0"} %d\nvllm:generation_tokens_total{engine="1"} 5\n'


def look(swaps: int, tokens: int) -> Look:
    return Look({"gateway": counters(GATEWAY % swaps), "box": counters(BOX % tokens)})


def test_growth_is_told_by_box_and_summed_over_engines() -> None:
    found = between(look(10, 100), look(14, 350), "gateway")
    assert found.swaps == {"a": 4, "b": 0, "c": 0}
    assert found.boxes == ["a", "b", "c"]
    assert found.engines["box"]["output_tokens"] == 250


def test_a_counter_that_fell_began_anew() -> None:
    assert between(look(10, 100), look(3, 20), "gateway").engines["box"]["output_tokens"] == 25


def test_what_could_not_be_read_is_unknown_and_not_zero() -> None:
    found = between(Look(failed={"gateway": "status 404"}), Look(failed={"gateway": "status 404"}), "gateway")
    assert found.swaps is None
    assert found.failed == {"gateway": "status 404"}
    no_gateway = Look({"gateway": counters(BOX % 1)})
    assert between(no_gateway, no_gateway, "gateway").swaps is None
