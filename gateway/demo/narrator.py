"""Which of the answers are news: a line when a customer's lot changes, and a summary now and then.

Pure: answers and times go in, lines come out.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from gateway.demo.traffic import Answer

Mood = Literal["good", "degraded", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Line:
    """Something to show. ``mood`` says how, ``subject`` is the customer or box that it is about."""

    mood: Mood
    subject: str
    text: str


Situation = tuple[str, str | None, bool]
"""Who served it, why it was degraded, whether it was an error."""


@dataclass(slots=True)
class _Tally:
    first_s: list[float] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    errors: int = 0


class Narrator:
    """Remembers what each customer was told last. ``every_s``: seconds between two summaries."""

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._last: dict[str, Situation] = {}
        self._told: dict[str, set[Situation]] = {}
        self._tally = _Tally()
        self._summed_up: float | None = None
        self.answers = 0
        self.errors = 0

    def hear(self, answer: Answer) -> Line | None:
        """The line that this answer deserves, or None when nothing has changed for its customer."""
        self.answers += 1
        self._tally.first_s.append(answer.first_s)
        if answer.error is not None:
            self.errors += 1
            self._tally.errors += 1
        else:
            self._tally.served[answer.served_by] += 1
            self._tally.degraded += answer.degraded is not None
        situation = (answer.served_by, answer.degraded, answer.error is not None)
        before = self._last.get(answer.customer)
        self._last[answer.customer] = situation
        well = situation[1:] == (None, False)
        if well:
            self._told.pop(answer.customer, None)
        elif situation in (told := self._told.setdefault(answer.customer, set())):
            return None  # of two reasons in turn, each is news once until the own adapter is back
        else:
            told.add(situation)
        if situation == before:
            return None
        return self._news(answer, was_degraded=before is not None and before[1:] != (None, False))

    def _news(self, answer: Answer, *, was_degraded: bool) -> Line:
        took = f"{'first token' if answer.stream else 'whole answer'} after {answer.first_s * 1000:.0f} ms"
        called = f" calls {answer.call}" if answer.call else ""
        if answer.error is not None:
            return Line("bad", answer.customer, f"{answer.error} (after {answer.first_s * 1000:.0f} ms)")
        if answer.degraded is not None:
            text = f"degraded, {answer.degraded}: {answer.model} from {answer.served_by}{called}, {took}"
            return Line("degraded", answer.customer, text)
        back = "back: " if was_degraded else ""
        return Line(
            "good", answer.customer, f"{back}own adapter {answer.model} from {answer.served_by}{called}, {took}"
        )

    def summary(self, now: float, *, last: bool = False) -> Line | None:
        """What happened since the last summary, once that is ``every_s`` ago; None before, or when nothing did.

        The ``last`` one of all does not wait.
        """
        if self._summed_up is None:
            self._summed_up = now
        due = last or now - self._summed_up >= self._every_s
        if not due or not self._tally.first_s:
            return None
        tally, seconds = self._tally, now - self._summed_up
        self._tally, self._summed_up = _Tally(), now
        by = ", ".join(f"{name} {count}" for name, count in sorted(tally.served.items()))
        text = (
            f"{len(tally.first_s)} answers in {seconds:.0f} s ({by or 'nobody served'}); {tally.degraded} degraded, "
            f"{tally.errors} failed; median {statistics.median(tally.first_s) * 1000:.0f} ms, "
            f"slowest {max(tally.first_s) * 1000:.0f} ms"
        )
        return Line("plain", "summary", text)
