"""What is told of each token, in an answer that is said once more: each of them once, whatever the events were."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.request import parse_request
from gateway.dataplane.resumption import Resumption, resumption
from gateway.dataplane.said import Said
from gateway.dataplane.splice import Splice
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import OtherAnswer

CHAT: dict[str, Any] = {"model": "acme_v3", "messages": [{"role": "user", "content": "hello"}], "stream": True}
ASKS_CHAT: dict[str, Any] = {**CHAT, "tools": [{}], "logprobs": True, "return_token_ids": True}
ASKS: dict[str, Any] = {"model": "acme_v3", "prompt": "once", "stream": True, "logprobs": 1}

tokens = st.lists(st.text(alphabet="ab ", min_size=1, max_size=3), min_size=2, max_size=8)


def events(said: list[str], *, chat: bool, cuts: list[int], lag: int) -> list[bytes]:
    """An answer, a few tokens an event; its text is ``lag`` characters behind, as where a stop string may begin."""
    whole, out, text_told, offset = "".join(said), [], 0, 0
    places = sorted({0, *(cut for cut in cuts if cut < len(said)), len(said)})
    for number, (start, end) in enumerate(pairwise(places)):
        last = number == len(places) - 2
        ready = len("".join(said[:end])) - (0 if last else lag)
        text, text_told = whole[text_told : max(text_told, ready)], max(text_told, ready)
        here = said[start:end]
        entries = [{"token": token, "logprob": -0.5, "bytes": list(token.encode())} for token in here]
        offsets = [offset + len("".join(here[:place])) for place in range(len(here))]
        offset += len("".join(here))
        lists = {"tokens": here, "token_logprobs": [-0.5] * len(here), "text_offset": offsets, "top_logprobs": None}
        choice = {"index": 0, "finish_reason": "stop" if last else None, "token_ids": [len(token) for token in here]}
        if chat:
            choice |= {"delta": {"content": text}, "logprobs": {"content": entries}}
        else:
            choice |= {"text": text, "logprobs": lists, "token_ids": None}
        out.append(json.dumps({"id": "x", "created": 1, "model": "m", "object": "o", "choices": [choice]}).encode())
    return out


def keep(payloads: list[bytes]) -> Said:
    said = Said(keeps_tokens=True)
    guard = StreamGuard(said=said)
    for payload in payloads:
        guard.feed(b"data: " + payload + b"\n\n")
    assert guard.error is None
    return said


def heard(payloads: list[bytes]) -> tuple[str, list[str], list[int], list[int]]:
    """Text, tokens, ids and offsets, as a client puts them together."""
    text, texts, ids, offsets = "", [], [], []
    for payload in payloads:
        for choice in json.loads(payload)["choices"]:
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            probs = choice["logprobs"] or {}
            texts += probs.get("tokens") or [entry["token"] for entry in probs.get("content") or ()]
            assert len(probs.get("tokens") or ()) == len(probs.get("token_logprobs") or ())
            offsets += probs.get("text_offset") or ()
            ids += choice["token_ids"] or ()
    return text, texts, ids, offsets


@given(tokens, st.lists(st.integers(1, 7)), st.lists(st.integers(1, 7)), st.integers(0, 3), st.booleans(), st.data())
def test_each_token_is_told_once(
    said: list[str], first_cuts: list[int], second_cuts: list[int], lag: int, chat: bool, data: st.DataObject
) -> None:
    first = events(said, chat=chat, cuts=first_cuts, lag=lag)
    told = first[: data.draw(st.integers(0, len(first) - 1))]
    kept = keep(told)
    found = resumption("chat" if chat else "completions", ASKS_CHAT if chat else ASKS, 1, kept.spoken())
    assert isinstance(found, Resumption)
    assert found.way == ("repeated" if told else "anew")
    splice = Splice(found, kept, kept.spoken(), said_tokens=0, spent=False)
    second = events(said, chat=chat, cuts=second_cuts, lag=lag)
    rest = [frame for payload in second if (frame := splice.frame(payload)) is not None]
    assert heard(told + rest) == heard(second)
    # And should it break again, it is known which.
    assert kept.spoken().tokens.texts == said
    assert kept.copy().spoken().tokens == kept.spoken().tokens


def test_other_tokens_of_the_same_text_are_not_put_together() -> None:
    kept = keep(events(["ab", "c"], chat=True, cuts=[1], lag=0)[:1])
    found = resumption("chat", ASKS_CHAT, 1, kept.spoken())
    assert isinstance(found, Resumption)
    splice = Splice(found, kept, kept.spoken(), said_tokens=0, spent=False)
    with pytest.raises(OtherAnswer, match="other tokens"):
        splice.frame(events(["a", "b", "c"], chat=True, cuts=[1], lag=0)[0])


@pytest.mark.parametrize(
    ("said", "lag", "way"),
    [(["a", " b", "c"], 0, "continued"), (["a", " b", "c"], 1, "repeated"), (["a", " ", "c"], 0, "repeated")],
)
def test_a_chat_with_logprobs_is_continued_only_behind_whole_tokens(said: list[str], lag: int, way: str) -> None:
    kept = keep(events(said, chat=True, cuts=[1, 2], lag=lag)[:2])
    found = resumption("chat", {**CHAT, "logprobs": True}, 1, kept.spoken())
    assert isinstance(found, Resumption)
    assert found.way == way


def test_with_no_token_left_none_is_told() -> None:
    kept = keep(events(["a", "b"], chat=True, cuts=[1], lag=0)[:1])
    found = resumption("chat", {**CHAT, "logprobs": True}, 1, kept.spoken())
    assert isinstance(found, Resumption)
    splice = Splice(found, kept, kept.spoken(), said_tokens=1, spent=True)
    (frame,) = (splice.frame(event) for event in events(["b"], chat=True, cuts=[], lag=0))
    assert frame is not None
    assert heard([frame]) == ("", [], [], [])


@pytest.mark.parametrize(
    ("fields", "keeps"),
    [
        ({"logprobs": True}, True),
        ({"logprobs": 0}, True),
        ({"return_token_ids": True}, True),
        ({"logprobs": False, "return_token_ids": False}, False),
        ({"logprobs": None}, False),
        ({}, False),
    ],
)
def test_tokens_are_kept_where_a_client_asks_for_them(fields: dict[str, Any], keeps: bool) -> None:
    request = parse_request(json.dumps({**CHAT, **fields}).encode(), id="1", endpoint="chat")
    assert request.tells_tokens is keeps
