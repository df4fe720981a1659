"""What a chat answer says, read for those that hand it on in another API's shape."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from gateway.errors import ProtocolError


class NoTwin(ValueError):
    """A request in another API's shape holds what chat completions have no word for; the message says what."""


class Function(msgspec.Struct):
    """A called function, or a part of it."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A tool call, or a part of it."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None

    def at(self, place: int) -> int:
        """Its number among the calls of its answer. In a whole answer that is its place in the list."""
        return place if self.index is None else self.index


class Turn(msgspec.Struct):
    """What is said: whole, or the part that one event brings."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    """The one choice that other APIs have."""

    delta: Turn | None = None
    message: Turn | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """OpenAI's counts of a chat."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, those in the cache included."""
        return self.prompt_tokens or 0

    @property
    def completion(self) -> int:
        """Tokens of the answer."""
        return self.completion_tokens or 0

    @property
    def cached(self) -> int:
        """Of the prompt's tokens, those that the provider had in its cache."""
        details = self.prompt_tokens_details
        return min(self.prompt, (details.cached_tokens or 0) if details is not None else 0)

    @property
    def reasoning(self) -> int:
        """Of the answer's tokens, those of its reasoning."""
        details = self.completion_tokens_details
        return (details.reasoning_tokens or 0) if details is not None else 0


class Said(msgspec.Struct):
    """A chat completion, or one event of one."""

    choices: list[Choice]
    model: str = ""
    usage: Usage | None = None


_T = TypeVar("_T")
_decode = msgspec.json.Decoder(Said).decode
_EMPTY = Turn()


def read_said(payload: bytes) -> Said:
    """Read a chat completion or an event of one. Raises :class:`ProtocolError`: it is in no shape to be handed on."""
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"an answer that is in no shape to be handed on: {error}") from error


def turn_of(choice: Choice) -> Turn:
    """What a choice, or its part in one event, says."""
    return choice.delta or choice.message or _EMPTY


def reasoning_of(turn: Turn) -> str:
    """Its reasoning, by either of the names that are in use."""
    return turn.reasoning or turn.reasoning_content or ""


def each(value: Any, kind: type[_T], what: str) -> list[_T]:
    """``value`` as a list of ``kind``. Raises :class:`NoTwin`: it is no such list; the upstream would refuse it too."""
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise NoTwin(f"{what} is in a form that chat has not got")
    return value


def kind_of(thing: Any) -> str:
    """How a part of a request calls its type, for people: not more of it than a name has."""
    kind = thing.get("type") if isinstance(thing, dict) else None
    return repr(kind[:40]) if isinstance(kind, str) else "unknown"


def picked(fields: Any, names: dict[str, str]) -> dict[str, Any]:
    """What ``fields`` has of ``names``, under the names that these stand for; nulls are left out."""
    return {new: fields[old] for old, new in names.items() if fields.get(old) is not None}
