"""Makes the events of an answer that goes on elsewhere those of the one that broke off: pure, event by event."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.dataplane.resumption import Resumption
from gateway.dataplane.said import TEXTS, Said, Spoken
from gateway.dataplane.told_calls import ToldCalls
from gateway.dataplane.told_tokens import Tokens, ToldTokens, without_tokens
from gateway.errors import OtherAnswer

_HEAD: Final = ("id", "created", "model", "object")
"""What all events of one answer have in common."""


class Splice:
    """``frame`` is a :data:`~gateway.dataplane.stream_guard.Reshape` for the guard of the second answer.

    What it lets through is added to ``said``, so that this one may break, too; ``spoken`` is that, put together.
    ``said_tokens``: of the first answer,
    where the second does not say them again. ``spent``: no token is left to be told, only how the answer ends; that is
    by the limit, or as the first answer had ``ended``, whose usage alone is missing.
    ``usage``: of both together, once it is known.
    """

    def __init__(
        self, found: Resumption, said: Said, spoken: Spoken, *, said_tokens: int, spent: bool, ended: str | None = None
    ) -> None:
        self._said = said
        self._spent = spent
        self._ended = ended
        self._second_ended: str | None = None
        self._added = said_tokens if found.way == "continued" else 0
        head = msgspec.json.decode(said.head or b"{}")
        self._head = {name: head[name] for name in _HEAD if name in head}
        repeated = found.way == "repeated"
        self._owed: dict[str, _Owed | _Blank] = {}
        if found.way != "continued":
            kind = _Owed if repeated else _Blank
            self._owed = {name: kind(text) for name, text in spoken.texts.items() if text}
        if found.owed:
            self._owed["content"] = _Owed(found.owed, lenient=True)
        self._calls = ToldCalls(spoken.calls if repeated else {})
        self._tokens = ToldTokens(spoken.tokens if repeated else Tokens())
        self._pieces: list[str] = []
        self._events: list[bytes] = []
        self.usage: Any = None

    def frame(self, payload: bytes) -> bytes | None:
        """One event's JSON as the client is to see it; None where nothing of it is left.

        Raises :class:`OtherAnswer` where it says something else than was said before.
        """
        chunk: dict[str, Any] = msgspec.json.decode(payload)
        given = chunk.get("choices") or ()
        self._pieces.clear()
        self._events.clear()
        choices = [choice for choice in given if self._choice(choice)]
        if isinstance(usage := chunk.get("usage"), dict):
            self._add(usage)
        elif not given:
            return None
        if given and not choices:
            # With `continuous_usage_stats` what is left out has a usage, too.
            return None
        # Only what will leave was said, and nothing of an event that was objected to.
        self._said.pieces += self._pieces
        self._said.events += self._events
        chunk["choices"] = choices
        frame = msgspec.json.encode(chunk | self._head)
        if self._said.payloads is not None:
            self._said.payloads.append(frame)
        return frame

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Leave of it what is new. Whether that is anything."""
        news = bool(choice.get("finish_reason"))
        if news:
            self._second_ended = choice["finish_reason"]
            if self._spent or self._ended:
                choice["finish_reason"] = self._ended or "length"
        if self._spent:
            without_tokens(choice)
        else:
            news |= self._tokens.leave_news(choice)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            # The one role was told by the first answer.
            delta.pop("role", None)
            news |= self._texts(delta, TEXTS)
            if parts := delta.pop("tool_calls", None):
                left = [part for part in parts if self._calls.leave_news(part)]
                if left:
                    delta["tool_calls"] = left
                    self._events.append(msgspec.json.encode({"choices": [{"delta": {"tool_calls": left}}]}))
                    news = True
        else:
            news |= self._texts(choice, ("text",))
        if self._ended and (self._pieces or self._events):
            raise OtherAnswer("the second answer goes on where the first one had ended")
        if news and self._is_behind():
            raise OtherAnswer("the second answer goes on or ends before it has said all that the first one had")
        return news

    def _texts(self, delta: dict[str, Any], names: tuple[str, ...]) -> bool:
        news = False
        for name in names:
            text = delta.get(name)
            if not isinstance(text, str) or not text:
                continue
            kept = "content" if name == "text" else name
            if (owed := self._owed.get(kept)) is not None:
                text = owed.rest_of(text)
            if self._spent:
                text = ""
            delta[name] = text
            if text:
                news = True
                if kept == "content":
                    self._pieces.append(text)
                else:
                    self._events.append(msgspec.json.encode({"choices": [{"delta": {name: text}}]}))
        return news

    def _is_behind(self) -> bool:
        return self._calls.behind or any(owed.strict_rest for owed in self._owed.values())

    def _add(self, usage: dict[str, Any]) -> None:
        """A continued answer takes for prompt what the first one had said of it."""
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if self._added and isinstance(prompt, int) and isinstance(completion, int):
            usage["prompt_tokens"] = max(0, prompt - self._added)
            # Of an answer that has ended the token that says so is all that counts of the second one.
            over = self._spent and not self._ended == self._second_ended == "stop"
            usage["completion_tokens"] = (0 if over else completion) + self._added
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        self.usage = usage


def begun_anew(told: Said) -> tuple[Said, Splice]:
    """For an answer that takes the place of one of which ``told`` had gone out, blanks at most: what is told from now
    on, and what makes it fit. A copy, as several may be asked, and what one says counts only once it is handed on."""
    said = told.copy()
    return said, Splice(Resumption("anew", {}), said, said.spoken(), said_tokens=0, spent=False)


class _Owed:
    """A text that is to come once more before anything new. ``lenient``: it may also not come."""

    __slots__ = ("_lenient", "_rest")

    def __init__(self, text: str, *, lenient: bool = False) -> None:
        self._rest = text
        self._lenient = lenient

    @property
    def strict_rest(self) -> str:
        """What has to come yet."""
        return "" if self._lenient else self._rest

    def rest_of(self, text: str) -> str:
        """What of ``text`` is new. Raises OtherAnswer where it is not what was said before."""
        rest = self._rest
        if not rest:
            return text
        if text.startswith(rest):
            self._rest = ""
            return text[len(rest) :]
        if rest.startswith(text):
            self._rest = rest[len(text) :]
            return ""
        if not self._lenient:
            raise OtherAnswer("the second answer says something else")
        self._rest = ""
        shared = 0
        while shared < min(len(rest), len(text)) and rest[shared] == text[shared]:
            shared += 1
        return text[shared:]


class _Blank:
    """A blank that was told at the beginning of an answer, which is now begun anew.

    That may begin with a longer one, of which the rest is told; any other one at its beginning is left out, so that its
    client never has both.
    """

    __slots__ = ("_now", "_over", "_told")
    strict_rest = ""

    def __init__(self, text: str) -> None:
        self._told = text
        self._now = ""
        self._over = False

    def rest_of(self, text: str) -> str:
        """What of ``text`` is to be told."""
        if self._over:
            return text
        rest = text.lstrip()
        self._over = bool(rest)
        before, self._now = self._now, self._now + text[: len(text) - len(rest)]
        if self._now.startswith(self._told):
            return self._now[max(len(before), len(self._told)) :] + rest
        return rest
