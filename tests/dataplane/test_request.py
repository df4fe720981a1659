"""What is read of a request, and what a client hears that sent something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.request import parse_request
from gateway.errors import RequestError


def refusal(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_request(body, id="1", endpoint="completions")
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"{", "not valid JSON", None),
        (b"", "not valid JSON", None),
        (b"\xff\xfe", "not valid JSON", None),
        (b"[]", "must be a JSON object", None),
        (b'"x"', "must be a JSON object", None),
        (b"{}", "`model` is missing", "model"),
        (b'{"model":""}', "`model` is empty", "model"),
        (b'{"model":7}', "`model` has the wrong type", "model"),
        (b'{"model":"x","stream":"yes"}', "`stream` has the wrong type", "stream"),
        (b'{"model":"x","stream_options":{"include_usage":1}}', "wrong type", "stream_options.include_usage"),
        (b'{"model":"x","messages":' + b"[" * 100_000, "nested too deeply", None),
    ],
)
def test_a_malformed_request_is_told_what_to_change(body: bytes, says: str, param: str | None) -> None:
    error = refusal(body)
    assert says in error.message
    assert error.param == param


@given(st.binary(max_size=300))
def test_no_body_raises_anything_but_a_refusal(body: bytes) -> None:
    try:
        parse_request(body, id="1", endpoint="completions")
    except RequestError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        (b'{"model":"x"}', 1),
        (b'{"model":"x","n":null}', 1),
        (b'{"model":"x","n":3}', 3),
        (b'{"model":"x","prompt":"a"}', 1),
        (b'{"model":"x","prompt":["a","b"]}', 2),
        (b'{"model":"x","prompt":[1,2,3]}', 1),
        (b'{"model":"x","prompt":[[1,2],[3]],"n":2}', 4),
    ],
)
def test_how_many_choices_have_to_finish(body: bytes, choices: int) -> None:
    assert parse_request(body, id="1", endpoint="completions").choices == choices


def test_unknown_fields_are_none_of_our_business() -> None:
    body = b'{"model":"x","top_k":5,"vllm_xargs":{"a":[1]}}'
    request = parse_request(body, id="1", endpoint="chat")
    assert request.body is body
    assert request.fields["vllm_xargs"] == {"a": [1]}
