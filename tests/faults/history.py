"""What happened in one test: every answer as it came, and everything that arrived at boxes and provider."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.faults.cast import Customer
from tests.support.checker import Seen, check_error, check_plain, check_stream
from tests.support.raw_client import Recording

QUESTION: Final = re.compile(r"question \d+ of \w+")
"""The text of every request that a client makes."""


@dataclass(frozen=True)
class Asked:
    """One request and its answer. ``question``: its text, which no other request of the session has."""

    customer: Customer
    adapter: str
    stream: bool
    question: str
    recording: Recording

    def __str__(self) -> str:
        headers = self.recording.headers
        served_by = headers.get("x-failsoft-served-by", "nobody")
        return f"{self.question} ({self.recording.status} by {served_by}, {self.recording.end})"

    @property
    def ended(self) -> float:
        """When the client had its answer, or left: ``time.monotonic``'s time."""
        return self.recording.started + self.recording.ended_s

    @property
    def served_by(self) -> str:
        """As the header has it."""
        return self.recording.headers.get("x-failsoft-served-by", "")

    @property
    def degraded(self) -> str | None:
        """The reason, as the header has it."""
        return self.recording.headers.get("x-failsoft-degraded")

    @cached_property
    def seen(self) -> Seen:
        """The answer, judged by what it has to be."""
        if self.recording.status != 200:
            return check_error(self.recording)
        text = self.customer.static_text if self.served_by == "static" else None
        return (check_stream if self.stream else check_plain)(self.recording, text=text)


@dataclass(frozen=True)
class Arrival:
    """One request as a box or the provider has it in its journal. Times are ``time.monotonic``'s."""

    target: str
    model: str | None
    question: str | None
    """What was asked; None of the gateway's own probes."""
    text: str
    """Headers and body, as JSON."""
    attempt: int
    """Which attempt of its request the gateway says this is."""
    started: float
    ended: float | None
    client_left: bool

    @classmethod
    def of(cls, target: str, entry: Mapping[str, Any]) -> Arrival:
        """From an entry of ``GET /simulator/requests``."""
        number = str(entry["headers"].get("x-request-id", "")).rpartition("-")[2]
        text = json.dumps([entry["headers"], entry["body"]])
        asked = QUESTION.search(text)
        return cls(
            target=target,
            model=entry["model"],
            question=asked[0] if asked else None,
            text=text,
            attempt=int(number) if number.isdigit() else 0,
            started=entry["started_monotonic"],
            ended=entry["ended_monotonic"],
            client_left=entry["client_left"],
        )


class History:
    """Everything."""

    def __init__(self, asked: Iterable[Asked], arrived: Iterable[Arrival], *, lag_s: float = 0.0) -> None:
        self.asked = list(asked)
        self.lag_s = lag_s
        """What a loaded machine may have added to any time in it."""
        self.arrived = sorted(arrived, key=lambda arrival: arrival.started)
        self._arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in self.arrived:
            if arrival.question is not None:
                self._arrivals[arrival.question].append(arrival)

    def arrivals(self, question: str) -> list[Arrival]:
        """What of one request arrived anywhere, in the order of arrival."""
        return self._arrivals.get(question, [])

    def of(self, customer: Customer) -> Iterator[Asked]:
        """One customer's requests."""
        return (asked for asked in self.asked if asked.customer == customer)
