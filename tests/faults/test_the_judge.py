"""The judge of histories finds what it is there to find."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.cast import ACME, BASE, GENERIC_MODEL, GLOBEX, Customer
from tests.faults.history import Arrival, Asked, History
from tests.faults.invariants import Weather, complaints
from tests.support.raw_client import End, Recording

QUESTION = "question 1 of acme"
ALL_DOWN = Weather(boxes=frozenset({"box-a", "box-b"}), reasons=frozenset({"backend_down"}))
HEADERS = {
    "content-type": "application/json",
    "x-request-id": "r",
    "x-failsoft-served-by": "box:box-a",
    "x-failsoft-attempts": "1",
    "x-failsoft-policy": "1",
}
BY_PROVIDER = {
    **HEADERS,
    "x-failsoft-served-by": "provider:hosted",
    "x-failsoft-degraded": "backend_down",
    "x-failsoft-model": GENERIC_MODEL,
}
UNAVAILABLE = {**HEADERS, "x-failsoft-served-by": "none", "retry-after": "5", "x-should-retry": "false"}
ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}


def said(name: str = "acme_v1", *, model: str = "acme_v1", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"{name}: 0 1 end/2"}, "finish_reason": "stop"}
    return {"id": "1", "model": model, "choices": [choice], **fields}


def degraded(**fields: Any) -> dict[str, Any]:
    return {
        "reason": "backend_down",
        "requested_model": "acme_v1",
        "served_model": GENERIC_MODEL,
        "served_by": "provider:hosted",
        **fields,
    }


def answered(
    body: dict[str, Any],
    *,
    headers: dict[str, str] = HEADERS,
    status: int | None = 200,
    customer: Customer = ACME,
    end: End = "complete",
) -> Asked:
    pieces = [(0.1, json.dumps(body).encode())]
    recording = Recording(
        started=100.0, status=status, headers=headers, pieces=pieces, end=end, head_s=0.1, ended_s=1.0
    )
    return Asked(customer, customer.adapters[0], False, QUESTION, recording)


def arrival(target: str = "box-a", *, model: str = "acme_v1", attempt: int = 1, **fields: Any) -> Arrival:
    entry = {
        "model": model,
        "headers": {"x-request-id": f"r-{attempt}"},
        "body": {"messages": [{"content": QUESTION}]},
        "started_monotonic": 100.0,
        "ended_monotonic": 101.0,
        "client_left": False,
        **fields,
    }
    return Arrival.of(target, entry)


def codes(asked: Asked, *arrived: Arrival, weather: Weather = ALL_DOWN) -> list[str]:
    return complaints(History([asked], arrived), weather)


@pytest.mark.parametrize(
    "asked",
    [
        answered(said()),
        answered(said("generic", model=GENERIC_MODEL, degraded=degraded()), headers=BY_PROVIDER),
    ],
    ids=["the own adapter's", "the provider's"],
)
def test_a_good_answer_is_not_complained_about(asked: Asked) -> None:
    assert codes(asked, arrival()) == []


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (answered(ERROR, headers=UNAVAILABLE, status=503), "I1: status 503"),
        (answered(said(), status=None, end="reset"), "I1: no whole answer"),
        (answered(said("globex_v1")), "the words are globex_v1's"),
        (answered({**said(), "choices": []}), "I2/I3: no_finish"),
        (answered(said(degraded=degraded())), "the own adapter's answer is marked"),
        (answered(said("generic", model=GENERIC_MODEL), headers=BY_PROVIDER), "degraded in the body is None"),
        (
            answered(said("generic", model=GENERIC_MODEL, degraded=degraded(reason="drill")), headers=BY_PROVIDER),
            "degraded in the body is",
        ),
        (
            answered(
                said("generic", model=GENERIC_MODEL, degraded=degraded(reason="bad luck")),
                headers={**BY_PROVIDER, "x-failsoft-degraded": "bad luck"},
            ),
            "reason 'bad luck'",
        ),
        (
            answered(said("generic", model="other", degraded=degraded()), headers=BY_PROVIDER),
            "x-failsoft-model 'generic-mini', model 'other'",
        ),
        (answered(said(), headers={**HEADERS, "x-request-id": ""}), "no x-request-id"),
        (answered(said(), headers={**HEADERS, "x-failsoft-attempts": "one"}), "x-failsoft-attempts: 'one'"),
        (
            answered(
                said("generic", model=GENERIC_MODEL, degraded=degraded(requested_model="globex_v1")),
                headers=BY_PROVIDER,
                customer=GLOBEX,
            ),
            "I6: served by provider:hosted",
        ),
    ],
)
def test_an_answer_that_breaks_an_invariant_is_found(asked: Asked, complaint: str) -> None:
    assert any(found.startswith(complaint) for found in codes(asked))


def test_an_error_is_right_where_nothing_healthy_is_allowed_and_says_when_to_come_back() -> None:
    nothing = Weather(boxes=ALL_DOWN.boxes, provider=True)
    customer = Customer("lonely", ("lonely_v1",), ("provider",))
    assert codes(answered(ERROR, headers=UNAVAILABLE, status=503, customer=customer), weather=nothing) == []
    late = {**UNAVAILABLE, "retry-after": "60"}
    (found,) = codes(answered(ERROR, headers=late, status=503, customer=customer), weather=nothing)
    assert found.startswith("the 503's Retry-After")


@pytest.mark.parametrize(
    ("arrived", "complaint"),
    [
        ((arrival(ended_monotonic=None),), "I4: attempt 1 at box-a still runs"),
        ((arrival(ended_monotonic=104.0),), "I4: attempt 1 at box-a ended 3.0 s after it lost"),
        (
            (arrival(ended_monotonic=103.0), arrival("box-b", attempt=2, started_monotonic=100.1)),
            "I4: attempt 1 at box-a ended 2.9 s after it lost",
        ),
        ((arrival(), arrival("box-b", attempt=2)), "2 attempts arrived, 1 were admitted to"),
        ((arrival(model="globex_v1"),), "I6: box-a was asked for globex_v1"),
        ((arrival(headers={"cookie": ACME.key}),), f"I6: {ACME.key} travelled to box-a"),
    ],
)
def test_what_arrived_where_it_should_not_or_for_too_long_is_found(
    arrived: tuple[Arrival, ...], complaint: str
) -> None:
    assert any(found.startswith(complaint) for found in codes(answered(said()), *arrived))


@pytest.mark.parametrize(("target", "model"), [("hosted", GENERIC_MODEL), ("box-a", BASE)])
def test_a_question_that_reaches_whom_its_policy_does_not_name_is_found(target: str, model: str) -> None:
    nobody_else = Customer("acme", ("acme_v1",), ("static",))
    found = codes(answered(said(), customer=nobody_else), arrival(target, model=model))
    assert any(one.startswith("I6:") for one in found)
