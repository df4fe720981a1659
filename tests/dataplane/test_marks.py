"""A degraded answer says so in its headers and in its body, without anything else being touched."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.marks import Mark, answer_headers, header_safe
from gateway.errors import Reason

MARK = Mark(Reason.BACKEND_DOWN, "acme_v3", "gpt", "provider:hosted")
DEGRADED = {
    "reason": "backend_down",
    "requested_model": "acme_v3",
    "served_model": "gpt",
    "served_by": "provider:hosted",
}


@given(
    st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()))), st.integers(0, 2)
)
def test_the_mark_is_added_to_any_json_object(body: dict[str, object], indent: int) -> None:
    marked = json.loads(MARK.splice(json.dumps(body, indent=indent or None).encode()))
    assert marked.get("degraded") == body.get("degraded", DEGRADED)
    assert {k: v for k, v in marked.items() if k != "degraded"} == {k: v for k, v in body.items() if k != "degraded"}


def test_only_the_first_event_of_a_stream_is_marked() -> None:
    marked = MARK.splice(b'data: {"choices":[1]}\n\ndata: {"choices":[2]}\n\n')
    first, second = marked.split(b"\n\n")[:2]
    assert json.loads(first.removeprefix(b"data: ")) == {"degraded": DEGRADED, "choices": [1]}
    assert second == b'data: {"choices":[2]}'


def test_every_answer_carries_four_headers_and_a_degraded_one_two_more() -> None:
    plain = dict(answer_headers(request_id="r", served_by="box:a", attempts=1, policy="7"))
    assert plain == {
        b"x-request-id": b"r",
        b"x-failsoft-served-by": b"box:a",
        b"x-failsoft-attempts": b"1",
        b"x-failsoft-policy": b"7",
    }
    marked = dict(answer_headers(request_id="r", served_by="static", attempts=2, policy="7", mark=MARK))
    assert marked[b"x-failsoft-degraded"] == b"backend_down"
    assert marked[b"x-failsoft-model"] == b"gpt"


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x", "modèle", "\x00"])
def test_a_providers_model_name_cannot_break_a_header(name: str) -> None:
    assert all(0x20 <= byte <= 0x7E for byte in header_safe(name))
