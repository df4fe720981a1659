"""What an endpoint said to a prompt: its tool calls, its text, or why it would not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

LONGEST = 20_000
"""Characters of a text that are kept: what rambles on is wrong whatever follows."""


@dataclass(frozen=True, slots=True)
class SaidCall:
    """``arguments`` is the text that came, be it JSON or not."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """``error``: the endpoint refused the request (its words). ``degraded``: the reason where a gateway says so."""

    calls: tuple[SaidCall, ...] = ()
    content: str = ""
    refusal: str = ""
    finish: str = ""
    error: str = ""
    model: str = ""
    served_by: str = ""
    degraded: str = ""
    fingerprint: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For the run's folder; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Said:
        """The reverse. Raises TypeError or KeyError for anything else."""
        calls = tuple(SaidCall(one["name"], one["arguments"]) for one in document.get("calls", ()))
        return cls(**{**document, "calls": calls})


class NoAnswer(ValueError):
    """A 200 whose body is no chat completion."""


def read_plain(body: Any) -> Said:
    """Of a ``chat.completion``. Raises NoAnswer."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        calls = [(one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls") or ()]
        return _said(body, calls, message.get("content"), message.get("refusal"), choice.get("finish_reason"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoAnswer(f"no chat completion: {type(error).__name__} {error}") from None


def read_stream(events: Iterable[Any]) -> Said:
    """Of a stream's chunks. Raises NoAnswer, also for a stream with an error in it or without a finish."""
    names: dict[int, str] = {}
    arguments: dict[int, list[str]] = {}
    texts: dict[str, list[str]] = {"content": [], "refusal": []}
    finish: Any = None
    seen: dict[str, Any] = {}
    try:
        for event in events:
            if event.get("error"):
                raise NoAnswer(f"the stream broke: {event['error']}")
            seen = {**{key: value for key, value in event.items() if value is not None}, **_kept(seen)}
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                for key, text in texts.items():
                    text.append(delta.get(key) or "")
                for one in delta.get("tool_calls") or ():
                    function = one.get("function") or {}
                    names[one["index"]] = function.get("name") or names.get(one["index"], "")
                    arguments.setdefault(one["index"], []).append(function.get("arguments") or "")
                finish = choice.get("finish_reason") or finish
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(f"no chunk of a chat completion: {type(error).__name__} {error}") from None
    if finish is None:
        raise NoAnswer("the stream ended without a finish")
    calls = [(names[index], "".join(arguments[index])) for index in sorted(names)]
    return _said(seen, calls, "".join(texts["content"]), "".join(texts["refusal"]), finish)


def _kept(seen: Mapping[str, Any]) -> dict[str, Any]:
    """The first event says whether the answer is degraded."""
    return {key: seen[key] for key in ("degraded", "model") if key in seen}


def _said(body: Any, calls: Iterable[tuple[Any, Any]], content: Any, refusal: Any, finish: Any) -> Said:
    mark = body.get("degraded")
    mark = mark if isinstance(mark, dict) else {}
    return Said(
        tuple(SaidCall(str(name), _text(arguments)) for name, arguments in calls),
        _text(content),
        _text(refusal),
        _text(finish),
        model=_text(body.get("model")),
        served_by=_text(mark.get("served_by")),
        degraded=_text(mark.get("reason")),
        fingerprint=_text(body.get("system_fingerprint")),
    )


def _text(value: Any) -> str:
    return value[:LONGEST] if isinstance(value, str) else ""
