"""Two thousand streams, each broken at a random place in a random way by one box, or by both."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.dataplane.relay import GOES_ON
from tests.faults.cast import CROWD
from tests.faults.history import Asked
from tests.faults.house import TOKENS, House
from tests.faults.invariants import Weather

SEED: Final = 20261126
STREAMS: Final = 2000
ENOUGH: Final = 10
"""Streams of a kind that went on at the other box. How many do depends on when the circuit of the faulty opens."""
AT_ONCE: Final = 16
BATCH: Final = 100
BREAKS: Final = {
    "reset_mid_stream": 16,
    "truncate": 16,
    "done_without_finish": 16,
    "error_frame_mid": 16,
    "abort": 16,
    "malformed_frame": 16,
    # Each of these takes a second of its own.
    "stall": 2,
}
"""And how often each is drawn, in a hundred or so."""
LIMIT: Final = 9
"""Tokens of a completion that says how many."""
OTHERWISE: Final = ("prose", "tool", "longer", "shorter")
TOOL: Final = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class Broken:
    """One stream that met a fault. ``kind``: what was asked for; ``otherwise``: how the other box's answer differs."""

    asked: Asked
    kind: str
    otherwise: str | None

    @property
    def resumed(self) -> bool:
        """Whether its box was lost behind its first content."""
        return GOES_ON in self.asked.recording.body

    @property
    def by_box(self) -> bool:
        """Whether an own adapter began it."""
        return self.asked.served_by.startswith("box:")


async def streams(
    house: House,
    count: int,
    boxes: tuple[str, ...],
    *,
    seed: int,
    tools: float = 0.0,
    completions: float = 0.0,
    others: str | None = None,
) -> list[Broken]:
    """So many, a few at a time, every one of which meets a fault at these boxes. A share of ``tools`` calls a tool, one
    of ``completions`` is none of a chat. The box ``others`` says something else than what is due."""
    chance = random.Random(seed)
    pairs = [(customer, adapter) for customer in CROWD for adapter in customer.adapters]
    asked: list[Broken] = []
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        (*kinds,) = chance.choices(
            ("chat", "tools", "completions"), (1 - tools - completions, tools, completions), k=len(numbers)
        )
        drawn = chance.choices(list(BREAKS), list(BREAKS.values()), k=len(numbers))
        rules = [
            {"fault": fault, "after_chunks": chance.randrange(1, TOKENS), "contains": f'"{seed}-{number}"'}
            for fault, number in zip(drawn, numbers, strict=True)
        ]
        otherwise = [None if others is None else OTHERWISE[number % len(OTHERWISE)] for number in numbers]
        for name in boxes:
            house.boxes[name].admin.faults(*rules)
        if others is not None:
            house.boxes[others].admin.faults(
                *(
                    {"fault": "other_words", "how": how, "contains": f'"{seed}-{number}"'}
                    for how, number in zip(otherwise, numbers, strict=True)
                )
            )
        waiting = asyncio.Semaphore(AT_ONCE)

        async def ask(number: int, kind: str, how: str | None, waiting: asyncio.Semaphore = waiting) -> Broken:
            customer, adapter = pairs[number % len(pairs)]
            fields: dict[str, Any] = {"user": f"{seed}-{number}"}
            if number % 3 == 0:
                fields["stream_options"] = {"include_usage": True}
            async with waiting:
                if kind == "completions":
                    limit = {"max_tokens": LIMIT} if number % 2 else {}
                    return Broken(await house.complete(customer, adapter, **fields, **limit), kind, how)
                tool = {"tools": [TOOL]} if kind == "tools" else {}
                return Broken(await house.ask(customer, adapter, **fields, **tool), kind, how)

        asked += await asyncio.gather(*map(ask, numbers, kinds, otherwise))
        for name in house.boxes:
            house.boxes[name].admin.heal()
    return asked


async def test_with_one_of_two_boxes_breaking_them_no_stream_shows_it(house: House) -> None:
    found = await streams(house, STREAMS, ("box-b",), seed=SEED, tools=0.3, completions=0.2)
    await _until(_enough_went_on, house, found, 2 * BATCH, seed=SEED, tools=0.3, completions=0.4)
    asked = [one.asked for one in found]
    await house.judge(asked, Weather(boxes=frozenset({"box-b"})))
    assert [str(one) for one in asked if one.seen.error is not None or not one.seen.whole] == []
    for one in found:
        choice = one.asked.seen.choices[0]
        if choice.finishes == ["length"]:
            assert one.kind == "completions"
            assert len(choice.text.split()) == LIMIT, one.asked
        assert choice.names == ({0: "lookup"} if one.kind == "tools" else {}), one.asked
    resumed = sum(
        float(line.rpartition(" ")[2])
        for line in house.gateway.metrics().splitlines()
        if line.startswith("failsoft_stream_resumes_total{") and '"resumed"' in line
    )
    assert resumed >= sum(one.resumed for one in found)


def _enough_went_on(found: list[Broken]) -> bool:
    """Whether of each kind enough did."""
    went_on = Counter(one.kind for one in found if one.resumed)
    return all(went_on[kind] >= ENOUGH for kind in ("chat", "tools", "completions"))


async def _until(
    shown: Callable[[list[Broken]], bool], house: House, found: list[Broken], count: int, *, seed: int, **how: Any
) -> None:
    """Add ``count`` at a time to ``found``, once the faulty box is asked again, until they show it."""
    for further in range(1, 11):
        if shown(found):
            return
        await house.recovered()
        found += await streams(house, count, ("box-b",), seed=seed + 100 * further, **how)
    assert shown(found), "so few went on elsewhere that this shows nothing"


async def test_where_the_other_box_says_something_else_no_two_answers_are_put_together(house: House) -> None:
    found = await streams(house, 4 * BATCH, ("box-b",), seed=SEED + 2, tools=1.0, others="box-a")
    await _until(_shows_both, house, found, BATCH, seed=SEED + 2, tools=1.0, others="box-a")
    await house.judge([one.asked for one in found], Weather(boxes=frozenset({"box-b"}), breaks_streams=True))
    resumed = [one for one in found if one.resumed]
    for one in resumed:
        choice = one.asked.seen.choices[0]
        # A call was told by its name: no other answer than one of the same tool goes on with it.
        assert choice.names == {0: "lookup"}, one.asked
        if one.asked.seen.error is None:
            assert one.otherwise in ("longer", "shorter"), one.asked


def _shows_both(found: list[Broken]) -> bool:
    """Whether answers of each kind that must not be gone on with were met, and one that may be."""
    errors = [(one.otherwise, one.asked.seen.error is not None) for one in found if one.resumed]
    return {("prose", True), ("tool", True)} <= set(errors) and any(not failed for _, failed in errors)


async def test_with_both_boxes_breaking_them_streams_end_with_an_error_and_nothing_is_made_up(house: House) -> None:
    found = await streams(house, 4 * BATCH, ("box-a", "box-b"), seed=SEED + 1, tools=0.4, completions=0.2)
    # A box whose streams stall is slow, too.
    reasons = frozenset({"backend_down", "circuit_open", "backend_saturated", "ttft_budget"})
    weather = Weather(boxes=frozenset({"box-a", "box-b"}), breaks_streams=True, reasons=reasons)
    await house.judge([one.asked for one in found if one.kind != "tools"], weather)
    await house.judge([one.asked for one in found if one.kind == "tools"], replace(weather, static_suits=False))
    own = [one for one in found if one.by_box]
    assert len(own) > BATCH
    for one in own:
        seen = one.asked.seen
        # All that a call has is said again, and breaks at the same place: none is whole. Of a text, the rest may be so
        # short that it has ended before that, or its limit so low; the judge has seen to it that it is all there.
        short = one.resumed or seen.choices[0].finishes == ["length"]
        assert seen.error is not None or (one.kind != "tools" and short), one.asked
    for kind in ("chat", "tools", "completions"):
        assert any(one.asked.seen.error is not None for one in own if one.kind == kind)
