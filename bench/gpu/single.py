"""Single requests, one after the other: when their first token came, and when all of the answer."""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from backend.loadtest.question import prompt_of

PROMPT_TOKENS: Final = 64
_END: Final = b"[DONE]"


class NoAnswer(Exception):
    """A single request got no whole answer. The message says what came."""


@dataclass(frozen=True, slots=True)
class Timed:
    """In seconds from the moment of sending. ``served_by``: what the gateway said of it; empty from a box."""

    first_s: float
    whole_s: float
    served_by: str


class Asker:
    """One kept connection to a box or a gateway. A context manager; not for several threads.

    Prompts are drawn anew for each request, so that no prefix cache answers. ``tokens``: of each answer, exactly.
    """

    def __init__(self, url: str, *, tokens: int, seed: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        self._tokens = tokens
        self._chance = random.Random(f"{seed} {url}")

    def ask(self, model: str, key: str = "none") -> Timed:
        """One streamed chat completion. Raises NoAnswer."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt_of(PROMPT_TOKENS, self._chance)}],
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
        }
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        content = json.dumps(body).encode()
        try:
            began = time.perf_counter()
            self._connection.request("POST", "/v1/chat/completions", content, headers)
            answer = self._connection.getresponse()
            if answer.status != 200:
                raise NoAnswer(f"{model} at {self._url}: status {answer.status}: {answer.read(2000).decode()}")
            first = ended = None
            while line := answer.readline():
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == _END:
                    ended = time.perf_counter()
                elif first is None and _has_content(json.loads(data)):
                    first = time.perf_counter()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"{model} at {self._url}: {type(error).__name__}: {error}") from error
        if first is None or ended is None:
            raise NoAnswer(f"{model} at {self._url}: the stream ended without {'content' if first is None else _END!r}")
        return Timed(first - began, ended - began, answer.headers.get("x-failsoft-served-by", ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def _has_content(event: dict[str, Any]) -> bool:
    """Whether it shows a token. A token may have no text (half of a character): then its finish counts."""
    if "error" in event:
        raise NoAnswer(f"an error in the stream: {event['error']}")
    choices = event.get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content") or choices[0].get("finish_reason"))


def forget(folder: Path) -> None:
    """Have the kernel drop its copies of the folder's files, so that they are read from the disk (posix_fadvise(2))."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
