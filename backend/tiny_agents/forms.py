"""The forms in which a house writes a fact: dates, amounts, order numbers, names, priorities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backend.tiny_agents.wishes import MONTHS, PRIORITIES

Facts = dict[str, str | int]
Value = str | int


@dataclass(frozen=True, slots=True)
class Form:
    """How a fact is written. ``kind``: its JSON type. ``spoken``: how the same fact stands in a wish."""

    kind: str
    write: Callable[[Facts], Value]
    spoken: str


def _month(facts: Facts) -> int:
    return MONTHS.index(str(facts["month"])) + 1


def _date(pattern: str) -> Form:
    return Form(
        "string",
        lambda facts: pattern.format(d=facts["day"], m=_month(facts), y=facts["year"], month=facts["month"]),
        "{day} {month} {year}",
    )


def _text(pattern: str, spoken: str, *, upper: bool = False) -> Form:
    def write(facts: Facts) -> str:
        text = pattern.format(**facts)
        return text.upper() if upper else text

    return Form("string", write, spoken)


def _priority(first: str, second: str, third: str) -> Form:
    words = dict(zip(PRIORITIES, (first, second, third), strict=True))
    return Form("string", lambda facts: words[str(facts["priority"])], "priority {priority}")


FORMS: Final = {
    "name": _text("{first} {last}", "{first} {last}"),
    "surname first": _text("{last}, {first}", "{first} {last}"),
    "first name": _text("{first}", "{first} {last}"),
    "surname": _text("{last}", "{first} {last}"),
    "order": _text("{order}", "order {order}"),
    "ORD-order": _text("ORD-{order}", "order {order}"),
    "SO/order": _text("SO/{order}", "order {order}"),
    "#order": _text("#{order}", "order {order}"),
    "order number": Form("integer", lambda facts: facts["order"], "order {order}"),
    "amount": _text("{euros}.{cents:02}", "{euros}.{cents:02} euros"),
    "EUR amount": _text("EUR {euros}.{cents:02}", "{euros}.{cents:02} euros"),
    "amount EUR": _text("{euros}.{cents:02} EUR", "{euros}.{cents:02} euros"),
    "amount,": _text("{euros},{cents:02}", "{euros}.{cents:02} euros"),
    "cents": Form("integer", lambda facts: int(facts["euros"]) * 100 + int(facts["cents"]), "{euros}.{cents:02} euros"),
    "date": _date("{d} {month} {y}"),
    "iso": _date("{y}-{m:02}-{d:02}"),
    "dotted": _date("{d:02}.{m:02}.{y}"),
    "us": _date("{m:02}/{d:02}/{y}"),
    "compact": _date("{y}{m:02}{d:02}"),
    "day": Form("integer", lambda facts: facts["day"], "{day} {month} {year}"),
    "month": Form("integer", _month, "{day} {month} {year}"),
    "year": Form("integer", lambda facts: facts["year"], "{day} {month} {year}"),
    "city": _text("{city}", "in {city}"),
    "CITY": _text("{city}", "in {city}", upper=True),
    "item": _text("{item}", "the {item}"),
    "ITEM": _text("{item}", "the {item}", upper=True),
    "problem": _text("{problem}", "is {problem}"),
    "item problem": _text("{item} {problem}", "the {item} is {problem}"),
    "item/problem": _text("{item}/{problem}", "the {item} is {problem}"),
    "priority": _priority("low", "normal", "high"),
    "PRIORITY": _priority("LOW", "NORMAL", "HIGH"),
    "P1": _priority("P3", "P2", "P1"),
    "colour": _priority("green", "yellow", "red"),
    "quantity": Form("integer", lambda facts: facts["quantity"], "{quantity}"),
}
