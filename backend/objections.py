"""What speaks against starting a box as it is asked for, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.policy.diagnostics import Severity


@dataclass(frozen=True, slots=True)
class Objection:
    """``about``: the key or flag. An error keeps the box from being started, a warning does not."""

    about: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.about} {self.message}" + (f" ({self.hint})" if self.hint else "")


def has_errors(found: Iterable[Objection]) -> bool:
    """Whether one of them is more than a warning."""
    return any(one.severity == "error" for one in found)
