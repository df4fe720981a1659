"""From what was measured to the costs of a box's engine, as the planner takes them. Pure.

Each stream of a load test gives an equation in the engine's costs. Between its first and its last token lie as many
steps as it has further tokens, each of which decoded all that ran at that box then; who came meanwhile had its prompt
computed and maybe its adapter copied in one of them. So costs are a linear regression, by robust least squares. Times
to first token are not used: they hold what a request waited for room, and what the client and the network add.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from statistics import median
from typing import Any

from backend.planner.least_squares import fit
from backend.planner.observed import CalibrationError, Observed, observed, swapped
from backend.simulator.engine_knobs import ModelKnobs

LEAST_SWAPS = 10
"""Fewer do not tell what one costs."""
SAME_STEP_S = 0.002
"""First tokens that come so near to each other are of one step."""
PASSES = 4
"""Whose tokens came when depends on how long prompts and swaps held them up, which is what is looked for."""
LEAST_SPREAD = 1.3
"""How much larger the tenth largest batch in a hundred has to be than the tenth smallest."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``knobs``: what was found, None where it was not. ``notes``: how, and what was not, in sentences."""

    knobs: ModelKnobs
    notes: tuple[str, ...]


def calibrated(document: Any, name: str, slots: int | None) -> Calibration:
    """Of a report of ``failsoft load --samples``, or a table of ``bench.gpu``. ``slots``: LoRA slots of the boxes that
    were measured; None: found out. Raises CalibrationError."""
    if isinstance(document, dict) and isinstance(document.get("sections"), dict):
        return _of_gpu_bench(document, name, slots)
    if isinstance(document, dict) and {"format", "overall", "run"} <= document.keys():
        return _of_load(observed(document, name), document, name, slots)
    raise CalibrationError(f"{name} is neither a report of failsoft load (--out) nor a table of bench.gpu (--json)")


def together(found: Sequence[Calibration]) -> Calibration:
    """What later ones say goes before what earlier ones do."""
    knobs = ModelKnobs()
    notes: list[str] = []
    for one in found:
        knobs = over(knobs, one.knobs)
        notes += one.notes
    return Calibration(knobs, tuple(notes))


def over(under: ModelKnobs, upper: ModelKnobs) -> ModelKnobs:
    """``under``, with what ``upper`` has in its place."""
    there = {one.name: value for one in fields(upper) if (value := getattr(upper, one.name)) is not None}
    return replace(under, **there)


def _of_load(
    boxes: Mapping[str, Sequence[Observed]], report: Mapping[str, Any], name: str, slots: int | None
) -> Calibration:
    unhindered = {box: _decoded(there, [0.0] * len(there)) for box, there in boxes.items()}
    # The mean number of sequences that ran while each did.
    batches = sorted(
        tokens / (boxes[box][n].output_tokens - 1) for box, decoded in unhindered.items() for n, tokens in decoded
    )
    low, high = batches[len(batches) // 10], batches[-1 - len(batches) // 10]
    if high < LEAST_SPREAD * low:
        raise CalibrationError(
            f"{name}: {low:.1f} to {high:.1f} sequences ran at a box all along, which does not tell a step's cost "
            "from a sequence's: measure with a rate that is not steady or higher (--rate)"
        )
    adapters = max(len({one.adapter for one in found} - {""}) for found in boxes.values())
    count = slots
    if count is None:
        fits = {n: found for n in range(1, adapters + 1) if (found := _fitted(boxes, unhindered, n)) is not None}
        count = min(fits, key=lambda n: fits[n].off, default=1)
    if (best := _fitted(boxes, unhindered, count, passes=PASSES)) is None:
        raise CalibrationError(
            f"{name}: its requests are too much alike to tell costs apart: let prompts and answers differ in length "
            "(prompt_tokens: {uniform: [100, 500]} in the traffic file)"
        )
    step_s, sequence_s, prompt_s, swap_s = best.costs
    notes = [
        f"{name}: {sum(map(len, boxes.values()))} streams of {len(boxes)} box{'es' if len(boxes) > 1 else ''}, "
        f"{low:.0f} to {high:.0f} sequences at once; half of their times are explained within {best.off:.1%}.",
        "What another adapter in the batch adds is counted in what another sequence adds.",
    ]
    knobs = ModelKnobs(decode_ms=step_s * 1000, decode_ms_per_seq=sequence_s * 1000, decode_ms_per_adapter=0.0)
    if step_s <= 0:
        raise CalibrationError(f"{name}: no step's cost is seen in it: measure at a lower rate as well (--rate)")
    if prompt_s > 0:
        knobs = replace(knobs, prefill_tokens_per_s=1 / prompt_s)
    else:
        notes.append("Not found: prompt tokens a second, as longer prompts took no longer.")
    if best.swaps >= LEAST_SWAPS and swap_s > 0:
        knobs = replace(knobs, swap_ms=swap_s * 1000)
        whence = "as given" if slots is not None else "the number that explains the times best"
        notes.append(f"{best.swaps} swaps, by vLLM's rule for {count} slots ({whence}).")
    else:
        notes.append(
            f"Not found: a swap's cost ({best.swaps} seen): ask for more adapters than a box has slots. Nor one's read "
            "from disk, which python -m bench.gpu measures."
        )
    notes += [f"The load test warned: {one}" for one in report.get("client", {}).get("warnings", ())]
    return Calibration(knobs, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Fitted:
    """``costs``: seconds of a step, a sequence, a prompt token, a swap. ``off``: the median error, as a share."""

    costs: list[float]
    off: float
    swaps: int


_Decoded = Sequence[tuple[int, float]]
"""Where a stream stands in its box's, and all tokens that the box decoded between its first and its last."""


def _fitted(
    boxes: Mapping[str, Sequence[Observed]], unhindered: Mapping[str, _Decoded], slots: int, *, passes: int = 1
) -> _Fitted | None:
    """``unhindered``: what was decoded by each box, were nobody ever held up, which the first pass takes for true."""
    found = _fit(boxes, unhindered, slots)
    for _ in range(passes - 1):
        if found is None:
            return None
        prompt_s, swap_s = found.costs[2:]
        decoded = {}
        for box, there in boxes.items():
            pairs = zip(there, swapped(there, slots), strict=True)
            decoded[box] = _decoded(there, [one.prompt_tokens * prompt_s + swap * swap_s for one, swap in pairs])
        found = _fit(boxes, decoded, slots)
    return found


def _fit(boxes: Mapping[str, Sequence[Observed]], decoded: Mapping[str, _Decoded], slots: int) -> _Fitted | None:
    rows, values, swaps = _equations(boxes, decoded, slots)
    if (costs := fit(rows, values)) is None:
        return None
    off = [
        abs(value - sum(a * b for a, b in zip(row, costs, strict=True))) / value
        for row, value in zip(rows, values, strict=True)
    ]
    return _Fitted(costs, median(off), swaps)


def _decoded(there: Sequence[Observed], held_up: Sequence[float]) -> _Decoded:
    """Of each that is counted. ``held_up``: the seconds for which each kept all others from decoding."""
    firsts = [one.first_s for one in there]
    sums = [0.0, *accumulate(held_up)]

    def decoding_s(begin_s: float, end_s: float) -> float:
        lost = sums[bisect_right(firsts, end_s)] - sums[bisect_right(firsts, begin_s)]
        return max(end_s - begin_s - lost, 1e-6)

    whole_s = [decoding_s(one.first_s, one.last_s) for one in there]
    longest_s = max(one.last_s - one.first_s for one in there)
    found = []
    for number, one in enumerate(there):
        if not one.counted or one.last_s <= one.first_s:
            continue
        tokens = 0.0
        for n in range(bisect_left(firsts, one.first_s - longest_s), bisect_left(firsts, one.last_s)):
            other = there[n]
            begin_s, end_s = max(one.first_s, other.first_s), min(one.last_s, other.last_s)
            if begin_s < end_s:
                share = decoding_s(begin_s, end_s) / whole_s[n]
                tokens += (other.output_tokens - 1) * min(share, 1.0)
        found.append((number, tokens))
    return found


def _equations(
    boxes: Mapping[str, Sequence[Observed]], decoded: Mapping[str, _Decoded], slots: int
) -> tuple[list[list[float]], list[float], int]:
    """Rows over (a step, a sequence, a prompt token, a swap), in seconds; and how many swaps there were."""
    rows, values, count = [], [], 0
    for box, there in boxes.items():
        firsts = [one.first_s for one in there]
        prompts = [0, *accumulate(one.prompt_tokens for one in there)]
        swaps = [0, *accumulate(map(int, swapped(there, slots)))]
        count += swaps[-1]
        for n, tokens in decoded[box]:
            one = there[n]
            # Who came meanwhile, and was not of the same step.
            begin = bisect_right(firsts, one.first_s + SAME_STEP_S)
            end = bisect_left(firsts, one.last_s + SAME_STEP_S)
            # As long as one token takes: an equation of hundreds of steps is worth no more than one of a few.
            size = (one.output_tokens - 1) ** 0.5
            came = one.output_tokens - 1, tokens, prompts[end] - prompts[begin], swaps[end] - swaps[begin]
            rows.append([amount / size for amount in came])
            values.append((one.last_s - one.first_s) / size)
    return rows, values, count


def _of_gpu_bench(document: Mapping[str, Any], name: str, slots: int | None) -> Calibration:
    sections: Mapping[str, Any] = document["sections"]
    found = Calibration(ModelKnobs(), ())
    report = sections.get("load", {}).get("report")
    if isinstance(report, dict) and "samples" in report:
        slots = slots or document["settings"]["max_loras"]
        found = _of_load(observed(report, name), report, name, slots)
    knobs, notes = found.knobs, [*found.notes]
    swap_ms = _median_ms(sections, "swap", "pool")
    if swap_ms is not None:
        knobs = replace(knobs, swap_ms=swap_ms)
        notes.append(f"{name}: a swap from the pool by its section swap.")
    disk_ms = _median_ms(sections, "disk", "disk")
    if disk_ms is not None and swap_ms is not None and disk_ms > swap_ms:
        knobs = replace(knobs, disk_load_ms=disk_ms - swap_ms)
        notes.append(f"{name}: a read from disk by its section disk, less the swap.")
    if not knobs.given:
        raise CalibrationError(
            f"{name} has none of the sections load (with samples), swap and disk: run python -m bench.gpu again"
        )
    return Calibration(knobs, tuple(notes))


def _median_ms(sections: Mapping[str, Any], section: str, what: str) -> float | None:
    value = sections.get(section, {}).get(what, {}).get("p50")
    return float(value) if value is not None and value > 0 else None
