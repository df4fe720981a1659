"""What was told of single tokens, which clients ask for by `logprobs` and `return_token_ids`: pure.

How events cut an answer into pieces is chance (a busy engine merges them), and text lags behind its tokens where an
engine holds it back (half a character, a stop string that may come). So tokens are counted apart from the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import OtherAnswer

_BY_TOKEN: Final = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
"""What the `logprobs` of completions have of each; those of chat are a list, ``content``."""


@dataclass(slots=True)
class Tokens:
    """Of an answer so far: as texts, where their `logprobs` were told, and as ids."""

    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def take(self, choice: Mapping[str, Any]) -> None:
        """Note those of one event's choice."""
        self.texts += _texts(choice.get("logprobs"))
        self.ids += choice.get("token_ids") or ()


def tokens_wanted(logprobs: Any, return_token_ids: Any) -> bool:
    """Whether these fields of a request ask for something of each token."""
    return (logprobs is not None and logprobs is not False) or bool(return_token_ids)


class ToldTokens:
    """``told``: those that are to come once more, and to be left out then."""

    __slots__ = ("_ids", "_texts")

    def __init__(self, told: Tokens) -> None:
        self._texts = list(reversed(told.texts))
        self._ids = list(reversed(told.ids))

    def leave_news(self, choice: dict[str, Any]) -> bool:
        """Leave of a choice what is new of its tokens. Whether that is anything. Raises OtherAnswer where they are
        others than those that were told."""
        news = False
        if texts := _texts(choice.get("logprobs")):
            known = _known(self._texts, texts)
            news = known < len(texts)
            choice["logprobs"] = _behind(choice["logprobs"], known) if news else None
        if ids := choice.get("token_ids"):
            left = ids[_known(self._ids, ids) :]
            choice["token_ids"] = left or None
            news |= bool(left)
        return news


def without_tokens(choice: dict[str, Any]) -> None:
    """Leave nothing of the tokens of a choice whose text is left out."""
    for name in ("logprobs", "token_ids"):
        if name in choice:
            choice[name] = None


def _texts(logprobs: Any) -> list[str]:
    if not isinstance(logprobs, dict):
        return []
    return logprobs.get("tokens") or [entry.get("token") for entry in logprobs.get("content") or ()]


def _known(told: list[Any], now: Iterable[Any]) -> int:
    """How many of ``now`` were told; they are taken from ``told``, whose last one is next."""
    known = 0
    for token in now:
        if not told:
            break
        if told.pop() != token:
            raise OtherAnswer("the second answer has other tokens")
        known += 1
    return known


def _behind(logprobs: dict[str, Any], known: int) -> dict[str, Any]:
    lists = ("content",) if logprobs.get("content") else _BY_TOKEN
    return logprobs | {name: logprobs[name][known:] for name in lists if isinstance(logprobs.get(name), list)}
