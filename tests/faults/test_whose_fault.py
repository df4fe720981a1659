"""What is the client's mistake, what is one adapter's trouble, what is load: nobody else pays for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.cast import ACME, CROWD, GLOBEX, HOOLI, INITECH, Customer
from tests.faults.history import History
from tests.faults.house import BUSY, House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually

BOTH = ("box-a", "box-b")


def states(house: House) -> set[str]:
    return {box["state"] for box in house.gateway.status()["boxes"]}


def asked_of_provider(history: History) -> int:
    return sum(arrival.target == "hosted" for arrival in history.arrived)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_case_26_a_box_that_says_the_request_is_wrong_is_passed_on_word_for_word(
    house: House, status: int
) -> None:
    with house.broken(BOTH, {"fault": "status", "status": status, "message": f"no good: {status}", "param": "top_p"}):
        history = await house.history(await house.crowd(times=2))
    for asked in history.asked:
        assert asked.recording.status == status
        assert asked.recording.json()["error"]["message"] == f"no good: {status}"
        assert asked.recording.json()["error"]["param"] == "top_p"
        assert asked.served_by == "none"
        assert asked.degraded is None
        assert asked.recording.headers["x-failsoft-attempts"] == "1"
        assert asked.seen.violations == []
    assert asked_of_provider(history) == 0
    assert states(house) == {"closed"}


async def test_case_26_a_mistake_that_is_found_in_the_first_frame_of_a_stream_still_gets_its_own_status(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "error_frame_first", "status": 400, "message": "no good"}):
        history = await house.history(await house.crowd())
    assert {asked.recording.status for asked in history.asked} == {400}
    as_the_box_says = {"message": "no good", "type": "BadRequestError", "param": None, "code": 400}
    assert all(asked.recording.json()["error"] == as_the_box_says for asked in history.asked if asked.stream)
    assert all(asked.seen.violations == [] for asked in history.asked)
    assert asked_of_provider(history) == 0
    assert states(house) == {"closed"}


async def test_case_26_a_prompt_that_is_too_long_is_the_clients_mistake_and_the_boxes_words_come_back(
    house: House,
) -> None:
    words = "word " * 10_000
    messages = [{"role": "user", "content": words}]
    for stream in (True, False):
        asked = await house.ask(ACME, stream=stream, messages=messages)
        assert asked.recording.status == 400
        assert asked.recording.json()["error"]["param"] == "input_tokens"
    assert house.provider.admin.requests() == []
    assert states(house) == {"closed"}


async def test_case_27_an_adapter_that_one_box_lacks_is_answered_by_the_other_and_only_that_pair_is_left_out(
    house: House,
) -> None:
    box = house.boxes["box-b"]
    with house.broken(["box-b"], {"fault": "adapter_missing", "adapter": "initech_v1"}):
        first = await house.crowd()
        missing = house.gateway.box("box-b")["missing_adapters"]
        fired = box.admin.rules()[0]["fired"]
        second = await house.crowd()
        assert box.admin.rules()[0]["fired"] == fired, "the box was asked again at once"
    history = await house.judge([*first, *second], Weather(boxes=frozenset({"box-b"})))
    assert [pair["adapter"] for pair in missing] == ["initech_v1"]
    assert states(house) == {"closed"}
    assert {asked.served_by for asked in history.asked if asked.adapter == "initech_v1"} == {"box:box-a"}
    assert {asked.served_by for asked in history.of(ACME)} == {"box:box-b"}, "the box is well otherwise"
    assert "adapter_missing" in house.gateway.alarms()


async def test_case_27_an_adapter_that_no_box_has_degrades_its_own_customer_and_no_other(house: House) -> None:
    with house.broken(BOTH, {"fault": "adapter_missing", "adapter": "acme_v1"}):
        asked = [*await house.crowd(), *await house.crowd()]
    weather = Weather(
        boxes=frozenset(BOTH), adapters=frozenset({"acme_v1"}), reasons=frozenset({"adapter_unavailable"})
    )
    history = await house.judge(asked, weather)
    assert states(house) == {"closed"}
    assert {asked.served_by for asked in history.of(ACME)} == {"provider:hosted"}
    assert all(asked.degraded is None for customer in CROWD if customer != ACME for asked in history.of(customer))


async def test_case_27_an_adapter_that_is_loaded_again_answers_at_once_whoever_has_nothing_else_to_be_answered_by(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "adapter_missing", "adapter": "hooli_v2"}):
        assert {asked.recording.status for asked in await house.crowd(customers=(HOOLI,))} == {503}
    await house.judge(await house.crowd(customers=(HOOLI,), times=3), Weather())


async def test_case_27_an_adapter_that_is_loaded_again_answers_all_its_customers_requests_however_many_come_at_once(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "adapter_missing", "adapter": "hooli_v2"}):
        await house.crowd(customers=(HOOLI,))

    def tried_again() -> bool:
        missing = [pair for box in house.gateway.status()["boxes"] for pair in box["missing_adapters"]]
        return bool(missing) and all(pair["retry_in_s"] == 0 for pair in missing)

    await eventually(tried_again)
    await house.judge(await house.crowd(customers=(HOOLI,), times=5), Weather())


@pytest.mark.parametrize(
    "rule",
    [
        {"fault": "status", "status": 503, "message": BUSY},
        {"fault": "status", "status": 429},
        {"fault": "error_frame_first", "status": 503, "message": BUSY},
    ],
    ids=["503", "429", "503 in the first frame"],
)
async def test_case_28_a_full_queue_spills_over_and_moves_no_breaker(house: House, rule: dict[str, Any]) -> None:
    with house.broken(BOTH, rule):
        asked = [*await house.crowd(), *await house.crowd()]
        assert states(house) == {"closed"}
    history = await house.judge(asked, Weather(boxes=frozenset(BOTH), reasons=frozenset({"backend_saturated"})))
    assert {asked.degraded for asked in history.asked} == {"backend_saturated", None}


@pytest.mark.parametrize("fault", ["reset_before_headers", "error_frame_first", "malformed_frame", "html_200"])
@pytest.mark.parametrize("customer", [ACME, GLOBEX, INITECH], ids=lambda customer: customer.name)
async def test_one_customers_adapter_that_breaks_every_answer_reaches_no_other_customer(
    house: House, customer: Customer, fault: str
) -> None:
    adapter = customer.adapters[0]
    with house.broken(BOTH, {"fault": fault, "adapter": adapter}):
        asked = [*await house.crowd(), *await house.crowd()]
    reasons = frozenset({"backend_down", "circuit_open"})
    history = await house.judge(
        asked, Weather(boxes=frozenset(BOTH), adapters=frozenset({adapter}), reasons=reasons, breaks_streams=True)
    )
    for one in history.asked:
        assert one.adapter == adapter or one.degraded is None, f"degraded by another's fault: {one}"
