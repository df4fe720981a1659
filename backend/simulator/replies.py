"""What is answered to particular prompts, in the place of the numbered answers: for tests of what is said, not of how.

A file of JSON lines, each ``{"prompt": TEXT, "call": {"name": …, "arguments": {…} or TEXT}}`` or ``{"prompt": TEXT,
"content": TEXT}``. ``prompt`` is the last user message; ``model`` (the name asked for) and ``system`` (a text in a
system message) narrow it down; the first line that fits is taken. ``sampled``: a list of further replies, of which the
request's ``seed`` chooses where its temperature is above 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from backend.simulator.ask import Ask
from backend.simulator.numbering import Numbered, cut


class BadReplies(ValueError):
    """A file that cannot be used."""


class Called(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call."""

    name: str
    arguments: Any


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """A call, or text."""

    call: Called | None = None
    content: str = ""


class Reply(Said, forbid_unknown_fields=True):
    """One line."""

    prompt: str | None = None
    model: str | None = None
    system: str | None = None
    sampled: list[Said] = []


class _Message(msgspec.Struct):
    role: str
    content: Any = None


class _Asked(msgspec.Struct):
    messages: list[_Message] = []
    seed: int | None = None
    temperature: float | None = None


_asked = msgspec.json.Decoder(_Asked, strict=False)


class Replies:
    """By prompt."""

    def __init__(self, replies: list[Reply]) -> None:
        self._by_prompt: dict[str | None, list[Reply]] = {}
        for reply in replies:
            self._by_prompt.setdefault(reply.prompt, []).append(reply)

    @classmethod
    def read(cls, path: Path) -> Replies:
        """Raises BadReplies, OSError."""
        try:
            return cls([msgspec.json.decode(line, type=Reply) for line in path.read_bytes().splitlines() if line])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadReplies(f"{path}: {error}") from None

    def find(self, model: str | None, body: bytes) -> Said | None:
        """What is to be said to a chat request that was understood."""
        asked = _asked.decode(body)
        users = [_text(one.content) for one in asked.messages if one.role == "user"]
        system = "\n".join(_text(one.content) for one in asked.messages if one.role == "system")
        fitting = [*self._by_prompt.get(users[-1] if users else "", ()), *self._by_prompt.get(None, ())]
        for reply in fitting:
            if reply.model in (None, model) and (reply.system is None or reply.system in system):
                several: list[Said] = [reply, *reply.sampled]
                return several[(asked.seed or 0) % len(several)] if asked.temperature else reply
        return None


def say(said: Said, ask: Ask) -> Numbered:
    """The tokens of a reply, some characters each; ``ask`` is for the tool that is called, or for none."""
    ask.tool = None if said.call is None else said.call.name
    text = said.content
    if said.call is not None:
        given = said.call.arguments
        text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)] or [""]
    return cut(tuple(pieces), ask.limit)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
