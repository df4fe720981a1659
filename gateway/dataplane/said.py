"""What a stream has told its client so far, kept so that another box can go on from there.

While all goes well only references are kept: of prose its pieces, of all else the whole events, which are looked into
when the stream has broken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gateway.dataplane.told_tokens import Tokens

TEXTS: Final = ("content", "reasoning", "reasoning_content", "refusal")
"""The fields of a delta that are text, piece by piece."""


@dataclass(slots=True)
class ToolCall:
    """A tool call as far as it was told."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Spoken:
    """All that was said, put together. ``odd``: some of it is of a kind that nobody knows how to go on with."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[int, ToolCall] = field(default_factory=dict)
    odd: bool = False
    tokens: Tokens = field(default_factory=Tokens)


class Said:
    """Of the one choice of a stream. ``head``: the first event's JSON, which has the answer's id. ``keeps_tokens``:
    something was asked for of each token."""

    __slots__ = ("events", "head", "odd", "payloads", "pieces")

    def __init__(self, *, keeps_tokens: bool = False) -> None:
        self.head: bytes | None = None
        self.pieces: list[str] = []
        """Of content in chat, of text in completions."""
        self.events: list[bytes] = []
        """The JSON of those that bear something else."""
        self.odd = False
        self.payloads: list[bytes] | None = [] if keeps_tokens else None
        """The JSON of all, where tokens are kept."""

    def copy(self) -> Said:
        """Another of the same."""
        other = Said()
        other.head, other.odd = self.head, self.odd
        other.pieces, other.events = list(self.pieces), list(self.events)
        other.payloads = None if self.payloads is None else list(self.payloads)
        return other

    @property
    def text(self) -> str:
        """The prose."""
        return "".join(self.pieces)

    def spoken(self) -> Spoken:
        """Everything."""
        spoken = Spoken({"content": self.text}, odd=self.odd)
        for event in self.events:
            for choice in msgspec.json.decode(event).get("choices") or ():
                _take(choice.get("delta") or {}, spoken)
        for payload in self.payloads or ():
            for choice in msgspec.json.decode(payload).get("choices") or ():
                spoken.tokens.take(choice)
        return spoken


def _take(delta: dict[str, Any], spoken: Spoken) -> None:
    for name in TEXTS[1:]:
        if isinstance(text := delta.get(name), str):
            spoken.texts[name] = spoken.texts.get(name, "") + text
    if delta.get("function_call") or delta.get("audio"):
        spoken.odd = True
    for part in delta.get("tool_calls") or ():
        call = spoken.calls.setdefault(part.get("index", 0), ToolCall())
        function = part.get("function") or {}
        call.id = call.id or part.get("id") or ""
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""
