"""What the demo's agents ask, all the same, so that one sees who answered: an own adapter calls its own tool."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from backend.tiny_agents.houses import GENERIC, HOUSES, House
from backend.tiny_agents.wishes import Wish

WISH: Final = Wish("refund", {"order": 482120, "euros": 49, "cents": 90}, "Please refund 49.90 euros for order 482120.")
MAX_TOKENS: Final = 80

_HOUSES: Final = {house.adapter: house for house in HOUSES}


def question(adapter: str) -> dict[str, Any]:
    """The request's body for an agent whose adapter that is."""
    tool = _HOUSES[adapter].tools[WISH.kind].schema()
    return {"model": adapter, "messages": [{"role": "user", "content": WISH.text}], "tools": [tool]}


def shown(name: str, arguments: str) -> str:
    """A tool call in a line."""
    return f"{name}({arguments})"


def box_replies(adapters: Iterable[str]) -> str:
    """What simulated boxes say to the question, as ``--replies`` takes it: each adapter what the trained one says."""
    return "".join(_reply(_HOUSES[adapter], model=adapter) for adapter in adapters)


def provider_replies() -> str:
    """What the stand-in provider says to it: the call of a generic tool, as a model that knows no customer would."""
    return _reply(GENERIC)


def _reply(house: House, **narrowed: str) -> str:
    call = house.call(WISH)
    called = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return json.dumps({"prompt": WISH.text, **narrowed, "call": called}) + "\n"
