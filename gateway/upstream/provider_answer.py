"""A hosted provider's answer in the shape that the client asked for, whatever the provider's dialect of OpenAI's.

Agents keep state by what a stream says of itself: one id, one ``created``, one model, one role, one finish a choice,
one usage. Providers repeat or change any of these (a second role delta makes the OpenAI SDK say
``assistantassistant``), and one that only speaks chat has to answer ``/v1/completions`` too.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import msgspec

from gateway.errors import ProtocolError
from gateway.upstream.provider_request import Endpoint

_FINISHES = {
    "end_turn": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
"""Finishes that are not OpenAI's, as some OpenAI-compatible APIs say them."""

_T = TypeVar("_T")
_CHUNK = "chat.completion.chunk"
_ANSWER = "chat.completion"
_ROLE = "assistant"


class _Turn(msgspec.Struct):
    role: str | None = None


class _Choice(msgspec.Struct):
    index: int | msgspec.UnsetType = msgspec.UNSET
    delta: _Turn | None = None
    message: _Turn | None = None
    finish_reason: str | msgspec.UnsetType | None = msgspec.UNSET

    def as_due(self) -> bool:
        """Whether it has an index and a finish that are OpenAI's: some providers leave out what is 0 or null."""
        finish = self.finish_reason
        return self.index is not msgspec.UNSET and finish is not msgspec.UNSET and _finish(finish) == finish


class _Wire(msgspec.Struct):
    """What decides whether a payload may go as it is."""

    choices: list[_Choice]
    id: str | None = None
    created: int | float | None = None
    model: str | None = None
    object: str | None = None
    usage: Any = None


class _Place(Enum):
    """Where in the life of its choice a part comes."""

    FIRST = "first"
    LATER = "later"
    AFTER = "after its finish"

    def keeps(self, choice: _Choice) -> bool:
        """Whether ``choice``, found here, may stay as it is."""
        if self is _Place.AFTER or choice.delta is None or not choice.as_due():
            return False
        return choice.delta.role == (_ROLE if self is _Place.FIRST else None)


_look = msgspec.json.Decoder(_Wire).decode
_encode = msgspec.json.encode


class AnswerShape:
    """Shapes one answer: a stream's payloads, in order, through :meth:`frame`, or a plain body through :meth:`body`.

    ``request_id``, ``created_s`` (Unix time) and ``asked_model`` stand in where the provider leaves out an id, a time
    or the model's name. ``model`` is the model that answered, from the first payload on.
    """

    __slots__ = (
        "_begun",
        "_created",
        "_endpoint",
        "_finished",
        "_id",
        "_include_usage",
        "_named",
        "_usage_sent",
        "model",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        include_usage: bool,
        request_id: str = "",
        created_s: int = 0,
        asked_model: str = "",
    ) -> None:
        # Whatever else is asked for is worded from a chat.
        self._endpoint: Endpoint = "completions" if endpoint == "completions" else "chat"
        self._include_usage = include_usage
        self._id = f"chatcmpl-{request_id}"
        self._created = created_s
        self._named = False
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._usage_sent = False
        self.model = asked_model

    def frame(self, data: bytes) -> bytes | None:
        """The payload of one ``chat.completion.chunk`` as the client should see it: ``data`` itself where nothing
        needs changing, None where nothing is left.

        :raises ProtocolError: it is no chunk, or brings more content for a choice that had its finish.
        """
        wire = _read(data)
        if not wire.choices and wire.usage is None:
            # Such as Azure's first frame, of the prompt's content filter only, with an empty id and model.
            return None
        same = self._name(wire, _CHUNK)
        places: list[_Place] = []
        for choice in wire.choices:
            place = self._place(choice)
            places.append(place)
            same = same and place.keeps(choice)
        usage = wire.usage is not None and self._takes_usage()
        if same and usage == (wire.usage is not None) and self._endpoint == "chat":
            return data
        chunk = _object(data)
        shaped = map(self._choice, chunk["choices"], places)
        chunk["choices"] = [choice for choice in shaped if choice is not None]
        if not usage:
            chunk.pop("usage", None)
        if not chunk["choices"] and not usage:
            return None
        return self._signed(chunk, _CHUNK)

    def body(self, data: bytes) -> bytes:
        """A plain ``chat.completion`` as the client should see it: ``data`` itself where nothing needs changing.

        :raises ProtocolError: it is no answer.
        """
        wire = _read(data)
        same = self._name(wire, _ANSWER)
        for choice in wire.choices:
            if choice.message is None:
                raise ProtocolError("a choice without a message")
            same = same and choice.message.role == _ROLE and choice.as_due()
        if same and self._endpoint == "chat":
            return data
        answer = _object(data)
        for choice in answer["choices"]:
            choice["index"] = choice.get("index", 0)
            choice["finish_reason"] = _finish(choice.get("finish_reason"))
            choice["message"]["role"] = _ROLE
        if self._endpoint == "completions":
            answer["choices"] = [_text_choice(choice, choice["message"]) for choice in answer["choices"]]
        return self._signed(answer, _ANSWER)

    def _name(self, wire: _Wire, object_: str) -> bool:
        """Settle id, time and model with the first payload; whether this payload agrees with them."""
        if not self._named:
            self._named = True
            self._id = wire.id or self._id
            self._created = int(wire.created or self._created)
            self.model = wire.model or self.model
        return (
            wire.id == self._id
            and wire.created == self._created
            and wire.model == self.model
            and wire.object == object_
        )

    def _place(self, choice: _Choice) -> _Place:
        """Note what a choice's part of one payload says, and where in the choice's life it comes."""
        index = 0 if choice.index is msgspec.UNSET else choice.index
        if index in self._finished:
            return _Place.AFTER
        place = _Place.LATER
        if index not in self._begun:
            self._begun.add(index)
            place = _Place.FIRST
        if choice.finish_reason:
            self._finished.add(index)
        return place

    def _takes_usage(self) -> bool:
        # One before the end is a running count, which some send with every chunk: only the last is the answer's.
        over = bool(self._begun) and self._begun == self._finished
        if not self._include_usage or self._usage_sent or not over:
            return False
        self._usage_sent = True
        return True

    def _choice(self, choice: dict[str, Any], place: _Place) -> dict[str, Any] | None:
        delta = dict(choice.get("delta") or ())
        delta.pop("role", None)
        if place is _Place.AFTER:
            if any(delta.values()):
                raise ProtocolError("more content for a choice that had its finish")
            return None
        choice = choice | {"index": choice.get("index", 0), "finish_reason": _finish(choice.get("finish_reason"))}
        if self._endpoint == "completions":
            choice = _text_choice(choice, delta)
            return choice if choice["text"] or choice["finish_reason"] else None
        if place is _Place.FIRST:
            delta = {"role": _ROLE, **delta}
        elif not delta and not choice["finish_reason"]:
            return None
        return choice | {"delta": delta}

    def _signed(self, payload: dict[str, Any], object_: str) -> bytes:
        payload["id"] = self._id
        payload["created"] = self._created
        payload["model"] = self.model
        payload["object"] = object_ if self._endpoint == "chat" else "text_completion"
        return _encode(payload)


def _text_choice(choice: dict[str, Any], turn: dict[str, Any]) -> dict[str, Any]:
    text = turn.get("content") or turn.get("refusal") or ""
    if not isinstance(text, str):
        raise ProtocolError("content that is not text, where a text completion is due")
    finish = choice.get("finish_reason")
    return {
        "index": choice["index"],
        "text": text,
        "logprobs": None,
        # A completion knows no tools: the answer has come to its end all the same.
        "finish_reason": "stop" if finish in ("tool_calls", "function_call") else finish,
    }


def _finish(reason: str | None) -> str | None:
    return None if not reason else _FINISHES.get(reason, reason)


def _read(data: bytes) -> _Wire:
    return _parsed(_look, data)


def _object(data: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = _parsed(msgspec.json.decode, data)
    return payload


def _parsed(decode: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a payload that is no answer: {error}") from error
