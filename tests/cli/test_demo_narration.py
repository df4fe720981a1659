"""What the demo finds worth a line."""

from __future__ import annotations

from dataclasses import replace

from gateway.demo.narrator import Narrator
from gateway.demo.traffic import Answer


def own(box: str = "box:box-a", customer: str = "acme") -> Answer:
    return Answer(customer, stream=True, first_s=0.05, served_by=box, model="customer_acme_v3")


def degraded(reason: str = "backend_down", customer: str = "acme") -> Answer:
    return Answer(customer, stream=True, first_s=0.2, served_by="provider:hosted", model="generic", degraded=reason)


def failed(message: str = "status 503: nothing left") -> Answer:
    return Answer("acme", stream=False, first_s=0.1, served_by="none", model="none", error=message)


def test_a_customer_whose_lot_is_unchanged_makes_no_line() -> None:
    narrator = Narrator(every_s=10)
    assert narrator.hear(own()) is not None
    assert [narrator.hear(own()) for _ in range(5)] == [None] * 5


def test_each_customer_has_a_lot_of_its_own() -> None:
    narrator = Narrator(every_s=10)
    narrator.hear(own(customer="acme"))
    line = narrator.hear(own(customer="globex"))
    assert line is not None
    assert line.subject == "globex"


def test_a_move_to_the_other_box_is_told() -> None:
    narrator = Narrator(every_s=10)
    narrator.hear(own("box:box-a"))
    line = narrator.hear(own("box:box-b"))
    assert line is not None
    assert line.mood == "good"
    assert line.text.startswith("own adapter customer_acme_v3 from box:box-b")


def test_a_degraded_answer_is_told_with_reason_model_and_provider() -> None:
    narrator = Narrator(every_s=10)
    narrator.hear(own())
    line = narrator.hear(degraded("circuit_open"))
    assert line is not None
    assert line.mood == "degraded"
    assert line.text.startswith("degraded, circuit_open: generic from provider:hosted")


def test_the_call_is_told_with_who_made_it() -> None:
    narrator = Narrator(every_s=10)
    line = narrator.hear(replace(own(), call='acme_credit({"cents": 4990})'))
    assert line is not None
    assert 'customer_acme_v3 from box:box-a calls acme_credit({"cents": 4990}), first token' in line.text
    line = narrator.hear(replace(degraded(), call='refund_order({"amount": "49.90"})'))
    assert line is not None
    assert 'generic from provider:hosted calls refund_order({"amount": "49.90"}), first token' in line.text


def test_reasons_that_take_turns_are_told_once_until_the_own_adapter_is_back() -> None:
    narrator = Narrator(every_s=10)
    narrator.hear(own())
    outage = [narrator.hear(degraded(reason)) for reason in ("ttft_budget", "circuit_open") * 3]
    assert [line is not None for line in outage] == [True, True, False, False, False, False]
    narrator.hear(own())
    assert narrator.hear(degraded("circuit_open")) is not None


def test_the_return_of_the_own_adapter_is_told_as_a_return() -> None:
    narrator = Narrator(every_s=10)
    narrator.hear(degraded())
    line = narrator.hear(own())
    assert line is not None
    assert line.text.startswith("back: own adapter")


def test_errors_are_told_once_however_their_wording_changes() -> None:
    narrator = Narrator(every_s=10)
    line = narrator.hear(failed("status 503: tried 2"))
    assert line is not None
    assert line.mood == "bad"
    assert narrator.hear(failed("status 503: tried 3")) is None
    assert narrator.errors == 2


def test_the_summary_comes_once_in_a_while_and_counts_what_came_since_the_last() -> None:
    narrator = Narrator(every_s=10)
    assert narrator.summary(0) is None
    for answer in (own(), own(), degraded(), failed()):
        narrator.hear(answer)
    assert narrator.summary(9) is None
    line = narrator.summary(10)
    assert line is not None
    assert "4 answers in 10 s (box:box-a 2, provider:hosted 1); 1 degraded, 1 failed" in line.text
    assert narrator.summary(25) is None, "nothing happened since"
