"""Which conversation a request belongs to: what stays the same in all requests of one.

An agent sends the whole history each time, so that a conversation is known by how it begins. Looked at only where an
alias splits: no other request pays for it. Nothing here refuses a request: what is no conversation, the box will say.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from gateway.policy.alias import named_conversation
from gateway.upstream.provider_request import Endpoint

HEADER = b"x-failsoft-conversation"
"""In which a client may name its conversation, where the beginning does not stay."""

PROMPT_CHARACTERS = 2048
"""Of a completion's prompt, which has no messages: what comes behind may have been added by a later turn."""

PROMPT_TOKENS = 512
"""The same for a prompt of token numbers."""

MOST_NAMED = 512
"""Bytes of a client's own name that count."""

_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class _Chat(msgspec.Struct):
    messages: list[_Message]


class _Completion(msgspec.Struct):
    prompt: Any = None


class _Response(msgspec.Struct):
    input: str | list[_Message]
    instructions: Any = None


class _Messages(msgspec.Struct):
    messages: list[_Message]
    system: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


_chat = msgspec.json.Decoder(_Chat).decode
_completion = msgspec.json.Decoder(_Completion).decode
_response = msgspec.json.Decoder(_Response).decode
_of_messages = msgspec.json.Decoder(_Messages).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def conversation_of(endpoint: Endpoint, body: bytes, name: bytes) -> bytes:
    """The conversation's key: the same for all of its requests, and hardly ever for another's.

    ``name`` is what the client calls it, or empty. Then a chat is known by its messages up to the first of the user,
    however their text is written, and a completion by the beginning of its (first) prompt. What the Responses and the
    Messages API keep apart from the messages, instructions and system, stands before them.
    """
    if name:
        return named_conversation(name[:MOST_NAMED].decode("latin-1"))
    try:
        beginning = _encode(_beginning(endpoint, body))
    except _MALFORMED:
        beginning = body
    return blake2b(beginning, digest_size=16).digest()


def _beginning(endpoint: Endpoint, body: bytes) -> Any:
    match endpoint:
        case "chat":
            return _first_messages(_chat(body).messages)
        case "responses":
            response = _response(body)
            given = response.input
            if isinstance(given, str):
                # As it is sent again in the next turn, with what was answered behind it.
                given = [_Message("user", msgspec.Raw(_encode(given)))]
            return [response.instructions, *_first_messages(given)]
        case "messages":
            asked = _of_messages(body)
            return [_parts(msgspec.json.decode(asked.system)), *_first_messages(asked.messages)]
        case _:
            return _first_of_prompt(body)


def _first_messages(messages: list[_Message]) -> list[Any]:
    first = next((i for i, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        first = next((i for i, message in enumerate(messages) if message.role not in ("system", "developer")), None)
    begin = messages if first is None else messages[: first + 1]
    return [[message.role, _parts(msgspec.json.decode(message.content))] for message in begin]


def _parts(content: Any) -> list[Any]:
    """A text alone and a list of one text are the same; marks for caches move from turn to turn."""
    return [_part(part) for part in content] if isinstance(content, list) else [content]


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") in ("text", "input_text"):
        return part.get("text")
    return {name: value for name, value in part.items() if name != "cache_control"}


def _first_of_prompt(body: bytes) -> Any:
    prompt = _completion(body).prompt
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt[:PROMPT_CHARACTERS]
    return prompt[:PROMPT_TOKENS] if isinstance(prompt, list) else prompt
