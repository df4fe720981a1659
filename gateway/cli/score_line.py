"""A customer's scores on one line: ``acme: 98.5 % own, 71.0 % degraded (200 prompts, 2026-11-26)``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def score_line(scores: dict[str, Any]) -> str:
    """``scores``: as the admin API has one customer's."""
    known = {path: scores[path] for path in ("own", "degraded") if scores[path] is not None}
    shares = ", ".join(f"{100 * found['right']:.1f} % {path}" for path, found in known.items())
    prompts = " and ".join(dict.fromkeys(str(found["prompts"]) for found in known.values()))
    day = datetime.fromtimestamp(max(found["at"] for found in known.values()), UTC).date()
    return f"{scores['customer']}: {shares} ({prompts} prompts, {day})"
