"""Which requests are of one conversation, and what a request for an alias is sent on as."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.conversation import PROMPT_CHARACTERS, PROMPT_TOKENS, conversation_of
from gateway.dataplane.renaming import MOST_PLACES, with_model
from gateway.upstream.provider_request import Endpoint

Messages = list[dict[str, Any]]

text = st.text(max_size=20)
later_turn = st.fixed_dictionaries({"role": st.sampled_from(["assistant", "user", "tool"]), "content": text})
SYSTEM = {"role": "system", "content": "You are Acme's agent."}
USER = {"role": "user", "content": "Where is my parcel?"}


def chat(messages: Messages, **more: Any) -> bytes:
    return conversation_of("chat", json.dumps({"messages": messages, "model": "acme", **more}).encode(), b"")


def completion(prompt: Any) -> bytes:
    return conversation_of("completions", json.dumps({"prompt": prompt, "model": "acme"}).encode(), b"")


@given(text, text, st.lists(later_turn), st.booleans())
def test_no_later_turn_changes_the_conversation(system: str, question: str, later: Messages, stream: bool) -> None:
    begin = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    assert chat([*begin, *later], stream=stream, tools=[{}]) == chat(begin)


@given(text, text, text)
def test_what_the_user_says_first_and_the_system_tell_conversations_apart(one: str, other: str, system: str) -> None:
    begin = {"role": "system", "content": system}
    same = one == other
    assert (
        chat([begin, {"role": "user", "content": one}]) == chat([begin, {"role": "user", "content": other}])
    ) == same
    assert (
        chat([{"role": "system", "content": one}, USER]) == chat([{"role": "system", "content": other}, USER])
    ) == same


def test_a_greeting_before_the_users_first_words_belongs_to_the_beginning() -> None:
    greeting = {"role": "assistant", "content": "Hello! How can I help?"}
    other = {"role": "user", "content": "I want my money back."}
    assert chat([SYSTEM, greeting, USER]) != chat([SYSTEM, greeting, other])
    assert chat([SYSTEM, greeting, USER, greeting, other]) == chat([SYSTEM, greeting, USER])


def test_how_the_text_is_written_is_of_no_matter() -> None:
    plain = chat([SYSTEM, {"role": "user", "content": "Grüße"}])
    part = {"type": "text", "text": "Grüße"}
    assert chat([SYSTEM, {"content": [part], "role": "user"}]) == plain
    assert chat([SYSTEM, {"role": "user", "content": [part | {"cache_control": {"type": "ephemeral"}}]}]) == plain
    raw = '{"messages":[{"role":"system","content":"You are Acme\'s agent."},{"role":"user","content":"Grüße"}]}'
    assert conversation_of("chat", raw.encode(), b"") == plain


def test_an_image_counts_and_where_its_cache_mark_stands_does_not() -> None:
    def look(url: str, **more: Any) -> bytes:
        part = {"type": "image_url", "image_url": {"url": url}, **more}
        return chat([{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}])

    assert look("data:1") != look("data:2")
    assert look("data:1") == look("data:1", cache_control={"type": "ephemeral"})


def test_without_a_users_message_it_is_the_first_that_is_no_instruction() -> None:
    tool = {"role": "tool", "content": "42"}
    assert chat([SYSTEM, tool]) == chat([SYSTEM, tool, tool])
    assert chat([SYSTEM]) != chat([SYSTEM, tool])


def test_a_completion_is_known_by_the_beginning_of_its_first_prompt() -> None:
    long = "x" * PROMPT_CHARACTERS
    assert completion(long + "a") == completion(long + "b") == completion([long, "another"])
    assert completion("a") != completion("b")
    tokens = list(range(PROMPT_TOKENS))
    assert completion([*tokens, 1]) == completion(tokens) == completion([tokens, [9]])
    assert completion([1, 2]) != completion([1, 3])


def test_the_clients_own_name_for_it_comes_first() -> None:
    def named(name: bytes, question: str) -> bytes:
        body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
        return conversation_of("chat", body, name)

    assert named(b"c1", "one") == named(b"c1", "two") != named(b"c2", "one")
    assert named(b"\xff" * 5000, "one") == named(b"\xff" * 6000, "one")


key = st.sampled_from(["messages", "role", "content", "prompt", "type", "text"])
anything = st.recursive(st.none() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(key, inner))


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@given(body=st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_body_is_there_is_a_key_and_always_the_same(endpoint: Endpoint, body: bytes) -> None:
    assert conversation_of(endpoint, body, b"") == conversation_of(endpoint, body, b"")


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": [1, null]}',
        b'{"messages": {}}',
        b"",
    ],
)
def test_a_malformed_beginning_is_for_the_box_to_refuse(body: bytes) -> None:
    assert conversation_of("chat", body, b"")


# What boxes get.

json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("model") | text, inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "metadata", "say \"model", "a"]), json_value),
    st.dictionaries(text, json_value),
    st.booleans(),
    st.sampled_from([None, 1]),
)  # fmt: skip
def test_only_the_model_of_the_body_itself_changes(
    before: dict[str, Any], after: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    fields = {k: v for k, v in before.items() if k != "model"} | {"model": "acme"}
    fields |= {k: v for k, v in after.items() if k not in fields}
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert json.loads(with_model(body, "acme_v3")) == fields | {"model": "acme_v3"}


def test_not_a_byte_but_the_name_changes() -> None:
    body = b'{ "n":1.0, "seed":123456789012345678901234567890,"x":"\\u00e9/\\/",\n "model" :\t"acme", "t":1e2}'
    assert with_model(body, 'v"4') == body.replace(b'"acme"', b'"v\\"4"')


@pytest.mark.parametrize(
    "decoy",
    [
        b'"metadata":{"model":"acme"}',
        b'"say \\"model":"acme"',
        b'"x":"\\"model\\":\\"acme\\""',
        b'"x":["model","acme"]',
    ],
)
def test_what_only_looks_like_the_model_stays(decoy: bytes) -> None:
    for body in (b'{%b,"model":"acme"}' % decoy, b'{"model":"acme",%b}' % decoy):
        renamed = with_model(body, "acme_v3")
        assert decoy in renamed
        assert json.loads(renamed)["model"] == "acme_v3"


def test_a_key_given_twice_is_read_as_boxes_read_it() -> None:
    assert with_model(b'{"model":"x","model":"acme"}', "v4") == b'{"model":"x","model":"v4"}'


def test_a_key_written_with_escapes_or_behind_many_others_has_the_body_written_anew() -> None:
    assert json.loads(with_model(b'{"mod\\u0065l":"acme","n":1}', "v4")) == {"model": "v4", "n": 1}
    many = b'{"x":"%b","model":"acme","m":[%b]}' % (b"x" * 100, b",".join([b'{"model":"acme"}'] * (MOST_PLACES + 1)))
    renamed = json.loads(with_model(many, "v4"))
    assert (renamed["model"], renamed["m"][0]) == ("v4", {"model": "acme"})


def test_what_is_not_json_all_through_cannot_be_written_anew() -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        with_model(b'{"mod\\u0065l":"acme","x":"\xff"}', "v4")


def response(input: Any, **more: Any) -> bytes:
    return conversation_of("responses", json.dumps({"input": input, "model": "acme", **more}).encode(), b"")


def message(messages: Messages, **more: Any) -> bytes:
    return conversation_of("messages", json.dumps({"messages": messages, "model": "acme", **more}).encode(), b"")


@given(text, text, st.lists(later_turn), st.booleans())
def test_no_later_turn_of_a_response_or_a_message_changes_the_conversation(
    system: str, question: str, later: Messages, stream: bool
) -> None:
    begin = [{"role": "user", "content": question}]
    assert response([*begin, *later], instructions=system, stream=stream) == response(begin, instructions=system)
    assert message([*begin, *later], system=system, stream=stream) == message(begin, system=system)


def test_an_input_that_is_text_goes_on_as_its_first_item() -> None:
    said = [{"type": "input_text", "text": "hello"}]
    assert response("hello") == response([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}])
    assert response("hello") == response([{"type": "message", "role": "user", "content": said}])


def test_instructions_and_system_prompts_tell_conversations_apart() -> None:
    assert response("hello", instructions="a") != response("hello", instructions="b")
    assert message([USER], system="a") != message([USER], system="b")
    cached = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    assert message([USER], system=cached) == message([USER], system="a")
