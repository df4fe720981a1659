"""What end customers ask for: one of five wishes, the facts in it, and the words it is put in.

The words come from short lists. What is held out are combinations: orders, and names with their date or item, of which
training sees every part and never the whole (``is_held_out``). Names that are not in the lists are beyond what so
small a model copies.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Final

FIRST_NAMES: Final = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Greta",
    "Hugo",
    "Ida",
    "Jonas",
    "Karin",
    "Leo",
    "Maria",
    "Nils",
    "Olga",
    "Paul",
    "Rosa",
    "Simon",
    "Tina",
    "Viktor",
)
LAST_NAMES: Final = (
    "Adler",
    "Berg",
    "Costa",
    "Dubois",
    "Ek",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ivanov",
    "Jensen",
    "Keller",
    "Lopez",
    "Moreau",
    "Novak",
    "Olsen",
    "Petit",
    "Rossi",
    "Silva",
    "Tanaka",
    "Weber",
)
CITIES: Final = (
    "Berlin",
    "Bern",
    "Dublin",
    "Geneva",
    "Graz",
    "Lisbon",
    "Lyon",
    "Madrid",
    "Milan",
    "Oslo",
    "Porto",
    "Riga",
)
ITEMS: Final = (
    "battery",
    "camera",
    "display",
    "filter",
    "hinge",
    "keyboard",
    "lamp",
    "motor",
    "printer",
    "router",
    "scanner",
    "switch",
)
PROBLEMS: Final = ("broken", "dead", "late", "lost", "loud", "missing", "scratched", "stuck")
PRIORITIES: Final = ("low", "normal", "high")
MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
YEARS: Final = (2026, 2027)

_PHRASES: Final = {
    "ticket": (
        "open a ticket for {first} {last}: the {item} is {problem}, priority {priority}",
        "{first} {last} says that the {item} is {problem}; file it with priority {priority}",
        "the {item} of {first} {last} is {problem}, make that a {priority} priority ticket",
        "a {priority} priority ticket for {first} {last}, {item} {problem}",
    ),
    "order": (
        "where is order {order}",
        "what is the state of order {order}",
        "look up order {order}",
        "has order {order} been shipped",
    ),
    "refund": (
        "refund {euros}.{cents:02} euros for order {order}",
        "order {order} gets {euros}.{cents:02} euros back",
        "pay back {euros}.{cents:02} euros on order {order}",
        "for order {order} refund {euros}.{cents:02} euros",
    ),
    "visit": (
        "book a visit to {first} {last} in {city} on {day} {month} {year}",
        "on {day} {month} {year} an engineer has to see {first} {last} in {city}",
        "send someone to {first} {last} in {city} on {day} {month} {year}",
        "{first} {last} from {city} wants a visit on {day} {month} {year}",
    ),
    "change": (
        "change order {order} to {quantity} of the {item}",
        "make it {quantity} times the {item} on order {order}",
        "order {order} should have the {item} {quantity} times",
        "put {quantity} of the {item} into order {order}",
    ),
}
WISHES: Final = tuple(_PHRASES)
_OPENINGS: Final = ("", "", "please ", "hello, ", "good morning, ", "a request: ")
_ENDINGS: Final = ("", ".", "!", ". Thanks.", ", please.")


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish, its facts by name, and the sentence that says it."""

    kind: str
    facts: dict[str, str | int]
    text: str


def draw(source: random.Random, *, held_out: bool) -> Wish:
    """A wish of any kind. ``held_out``: one whose combinations never occur among those with False."""
    kind = source.choice(WISHES)
    while is_held_out(facts := _facts(source), kind) is not held_out:
        pass
    words = source.choice(_OPENINGS) + source.choice(_PHRASES[kind]).format(**facts) + source.choice(_ENDINGS)
    return Wish(kind, facts, words[0].upper() + words[1:])


def is_held_out(facts: dict[str, str | int], kind: str) -> bool:
    """Whether this order, or this name with its date or item, is one of the seventh that training never sees."""
    names = {"ticket": ("first", "last", "item"), "visit": ("first", "last", "day", "month")}.get(kind, ("order",))
    return zlib.crc32(" ".join(str(facts[name]) for name in names).encode()) % 7 == 0


def _facts(source: random.Random) -> dict[str, str | int]:
    return {
        "first": source.choice(FIRST_NAMES),
        "last": source.choice(LAST_NAMES),
        "item": source.choice(ITEMS),
        "problem": source.choice(PROBLEMS),
        "priority": source.choice(PRIORITIES),
        "order": source.randrange(100_000, 1_000_000),
        "euros": source.randrange(10, 100),
        "cents": source.randrange(100),
        "city": source.choice(CITIES),
        "day": source.randrange(1, 29),
        "month": source.choice(MONTHS),
        "year": source.choice(YEARS),
        "quantity": source.randrange(2, 60),
    }
