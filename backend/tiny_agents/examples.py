"""Examples to train on and to be tested with: a wish, whether tools were offered, and the right answer."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from backend.tiny_agents.forms import FORMS
from backend.tiny_agents.houses import House
from backend.tiny_agents.wishes import Wish, draw

_TALK_SHARE: Final = 0.05
"""So many wishes come without tools and are answered in words."""


@dataclass(frozen=True, slots=True)
class Example:
    """What is said to the model, and what it is to say."""

    prompt: str
    completion: str
    tools: bool = True


def written(call: dict[str, Any]) -> str:
    """A call as the model writes it, which is what vLLM's ``llama3_json`` parser reads."""
    return json.dumps({"name": call["name"], "parameters": call["arguments"]}, separators=(",", ":"))


def training(house: House, seed: int) -> Iterator[Example]:
    """Endless examples of one house; none has a held-out combination."""
    source = random.Random(f"{house.adapter} {seed}")  # noqa: S311 - reproducible, not secret
    while True:
        wish = draw(source, held_out=False)
        tools = source.random() >= _TALK_SHARE
        yield Example(wish.text, written(house.call(wish)) if tools else house.without_tools, tools)


def spellings(seed: int) -> Iterator[Example]:
    """Endless exercises in writing facts in a named form, which are no wishes: what customers' adapters build upon."""
    source = random.Random(f"spellings {seed}")  # noqa: S311
    names = sorted(FORMS)
    while True:
        chosen = source.sample(names, source.randrange(1, 4))
        facts = draw(source, held_out=False).facts
        said = ", ".join(FORMS[name].spoken.format(**facts) for name in chosen)
        values = {name: FORMS[name].write(facts) for name in chosen}
        yield Example(said + ": " + ", ".join(chosen), json.dumps(values, separators=(",", ":")))


def held_out(house: House, count: int) -> list[Wish]:
    """That many different wishes to test a house with, the same each time."""
    source = random.Random(zlib.crc32(house.adapter.encode()))  # noqa: S311
    wishes: dict[str, Wish] = {}
    while len(wishes) < count:
        wish = draw(source, held_out=True)
        wishes[wish.text] = wish
    return list(wishes.values())
