"""How limits and caps stand, in words, for `failsoft status` and `failsoft explain`."""

from __future__ import annotations

from typing import Any

_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "concurrency": "at once"}


def in_words(limits: dict[str, Any]) -> str:
    """Of one customer: ``12 of 600 requests a minute left; 3.20 of 25 USD spent today``; empty where there are none."""
    parts = [
        f"{limit['left']} of {limit['limit']} {words} left"
        for kind, words in _WORDS.items()
        if (limit := limits[kind]) is not None and limit["left"] is not None
    ]
    hosted = limits["hosted"]
    if hosted["usd_per_day"] is not None:
        parts.append(f"{hosted['spent_usd']:.2f} of {hosted['usd_per_day']:g} USD spent today at hosted providers")
    return "; ".join(parts)
