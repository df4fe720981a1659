"""Asks one endpoint one prompt, and again where the failure is one that passes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx2

from backend.evalgate.said import NoAnswer, Said, read_plain, read_stream

TRIES: Final = 4
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 30.0

_OURS: Final = frozenset({400, 413, 422})
"""The endpoint refuses this very prompt: that is its answer."""
_BARRED: Final = frozenset({401, 403, 404})
"""No prompt will be answered: a wrong key, a model that is not there."""

Pause = Callable[[float], Awaitable[None]]


class Unanswered(Exception):
    """No answer to this prompt, after all tries."""


class Barred(Exception):
    """No prompt of this customer's will be answered at this endpoint, as it is asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt for one endpoint. ``degraded``: the answer has to be a fallback's; else it must not be."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    degraded: bool = False


class Client:
    """``pause`` waits between tries."""

    def __init__(self, http: httpx2.AsyncClient, *, tries: int = TRIES, pause: Pause = asyncio.sleep) -> None:
        self._http = http
        self._tries = tries
        self._pause = pause

    async def ask(self, question: Question) -> Said:
        """What is said. Raises Unanswered, Barred."""
        failure, wait_s = "", 0.0
        for number in range(self._tries):
            if number:
                await self._pause(wait_s)
            wait_s = FIRST_WAIT_S * 2**number
            began = time.monotonic()
            try:
                answer = await self._http.post(
                    f"{question.url}/chat/completions", json=dict(question.body), headers=dict(question.headers)
                )
                if answer.status_code == 200:
                    said = replace(_read(answer, question), seconds=round(time.monotonic() - began, 4))
                    if said.finish != "abort":  # vLLM's word for a shutdown in the middle
                        return self._checked(said, question)
                    failure = "the server ended the answer before its time"
                    continue
            except (httpx2.HTTPError, NoAnswer) as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                continue
            message = _message(answer)
            if answer.status_code in _OURS:
                return Said(error=f"{answer.status_code}: {message}")
            if answer.status_code in _BARRED:
                raise Barred(f"{question.url} answers {answer.status_code}: {message}")
            failure = f"{answer.status_code}: {message}"
            wait_s = max(wait_s, _retry_after_s(answer))
        raise Unanswered(f"{question.url}: {failure}")

    async def models(self, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """What the endpoint says that it serves: by name, what stays the same while it does. Empty where it does not
        say. Raises Unanswered where nobody is there."""
        try:
            answer = await self._http.get(f"{url}/models", headers=dict(headers), timeout=10.0)
        except httpx2.HTTPError as error:
            raise Unanswered(f"{url}: {str(error) or type(error).__name__}") from None
        try:
            listed = answer.json()["data"] if answer.status_code == 200 else []
            return {one["id"]: {key: one.get(key) for key in ("root", "parent")} for one in listed}
        except (ValueError, KeyError, TypeError):
            return {}

    def _checked(self, said: Said, question: Question) -> Said:
        if question.degraded and not said.degraded:
            raise Unanswered(f"{question.url} did not answer by the fallback, although it was asked to")
        if said.degraded and not question.degraded:
            raise Unanswered(f"{question.url} answered degraded ({said.degraded}), although it was asked not to")
        return said


def _read(answer: httpx2.Response, question: Question) -> Said:
    if question.body.get("stream"):
        return read_stream(_events(answer.text))
    try:
        return read_plain(answer.json())
    except ValueError as error:
        raise NoAnswer(str(error)) from None


def _events(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            try:
                event = json.loads(data)
            except ValueError as error:
                raise NoAnswer(f"an event that is no JSON: {error}") from None
            if not isinstance(event, dict):
                raise NoAnswer("an event that is no object")
            yield event


def _message(answer: httpx2.Response) -> str:
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _retry_after_s(answer: httpx2.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(LONGEST_WAIT_S, float(text)) if text.isascii() and text.isdigit() else 0.0
