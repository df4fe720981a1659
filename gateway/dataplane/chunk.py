"""One event of a chat's or a completion's stream, as far as anything follows from it.

None of what is decoded here can be part of a cycle, so that the collector is not told of it: a seventh less to decode.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.said import Said


class Delta(msgspec.Struct, gc=False):
    """What is new of a choice of a chat."""

    content: Any = None
    tool_calls: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers that were asked for."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event."""

    choices: list[Choice] | None = None
    error: Any = None
    model: str | None = None
    usage: Any = None


decode = msgspec.json.Decoder(Chunk).decode


def only_text(chunk: Chunk) -> str | None:
    """The text of a delta that has some and nothing else, of an answer with one choice; of any other chunk None."""
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.error is not None or chunk.usage is not None:
        return None
    choice = choices[0]
    delta = choice.delta
    if delta is None or choice.finish_reason or choice.text or type(text := delta.content) is not str:
        return None
    return None if _has_more_than_text(delta) else text or None


def keep(said: Said, payload: bytes, text: Any, delta: Delta | None) -> None:
    """Note what was told, of ``payload``, as something to go on from."""
    if type(text) is str:
        said.pieces.append(text)
    elif text:
        said.odd = True
    if delta is not None and _has_more_than_text(delta):
        said.events.append(payload)


def _has_more_than_text(delta: Delta) -> bool:
    return bool(
        delta.tool_calls
        or delta.reasoning
        or delta.reasoning_content
        or delta.refusal
        or delta.function_call
        or delta.audio
    )
