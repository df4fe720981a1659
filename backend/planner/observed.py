"""What a load test saw of the boxes, request by request, as its report holds it with ``--samples``. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_ANSWERS = 100
"""Fewer streams tell the pace of a box only by chance."""


class CalibrationError(ValueError):
    """What was measured does not tell how boxes behave; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One stream of a box's. Times in seconds on one clock; ``last_s``: the last content."""

    adapter: str
    prompt_tokens: int
    output_tokens: int
    sent_s: float
    first_s: float
    last_s: float
    counted: bool
    """Whether it is measured; those of the warm-up only keep the box busy."""


def observed(report: Mapping[str, Any], name: str) -> dict[str, list[Observed]]:
    """By box, in the order of their first tokens. Raises CalibrationError."""
    samples = report.get("samples")
    if not isinstance(samples, dict):
        raise CalibrationError(
            f"{name} holds percentiles and no single requests: run `failsoft load` again with --samples and --out FILE"
        )
    boxes: dict[str, list[Observed]] = defaultdict(list)
    warm_up_s = float(report["run"].get("warm_up_s") or 0.0)
    try:
        columns = [samples[column] for column in COLUMNS]
        for at_s, served_by, model, prompt, output, sent_s, first_s, last_s in zip(*columns, strict=True):
            kind, _, box = served_by.partition(":")
            if kind in ("box", "base") and first_s is not None and last_s is not None and output >= 2:
                adapter = model if kind == "box" else ""
                found = Observed(adapter, prompt, output, sent_s, first_s, last_s, at_s >= warm_up_s)
                boxes[box].append(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(f"{name}: its samples cannot be read ({type(error).__name__}: {error})") from None
    count = sum(one.counted for found in boxes.values() for one in found)
    if count < LEAST_ANSWERS:
        raise CalibrationError(
            f"{name} has {count} streamed answers of boxes, and {LEAST_ANSWERS} are the least: let `failsoft load` run "
            "longer (--duration), with streams, and with boxes that answer"
        )
    return {box: sorted(found, key=lambda one: one.first_s) for box, found in sorted(boxes.items())}


COLUMNS = ("at_s", "served_by", "model", "prompt_tokens", "output_tokens", "sent_s", "first_s", "last_s")


def swapped(there: Sequence[Observed], slots: int) -> list[bool]:
    """Whether each brought its adapter into one of ``slots``, as vLLM's LRU has it: who runs was used just now."""
    used: dict[str, float] = {}
    found = []
    for one in there:
        swap = one.adapter != "" and one.adapter not in used
        if swap and len(used) >= slots:
            del used[min(used, key=lambda name: min(used[name], one.first_s))]
        if one.adapter:
            used[one.adapter] = max(used.get(one.adapter, 0.0), one.last_s)
        found.append(swap)
    return found
