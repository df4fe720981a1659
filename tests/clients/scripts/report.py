"""What all scripts of this folder have in common: a line of JSON in, one out. Only the standard library.

A script goes on until standard input ends, and does what each line tells it to: to begin, for what it has to import,
takes longer than all that it does then.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

QUESTION = "Where is my parcel?"

TEXTS = ["Where is my parcel?", "It is at the depot."]
"""What vectors are asked of."""

SCHEMA = {
    "type": "object",
    "properties": {
        "answered_by": {"type": "string"},
        "numbers": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["answered_by", "numbers"],
    "additionalProperties": False,
}
"""The form of the simulator's numbered answers, where they are the arguments of a tool, or have to be an object."""

_NAMED = {"name": "look_up", "description": "Look something up."}
LOOK_UP = {"type": "function", "function": {**_NAMED, "parameters": SCHEMA, "strict": True}}
"""A tool in the words of OpenAI's chat API."""
LOOK_UP_OF_RESPONSES = {"type": "function", **_NAMED, "parameters": SCHEMA, "strict": True}
"""The same in those of its Responses API."""
LOOK_UP_OF_MESSAGES = {**_NAMED, "input_schema": SCHEMA}
"""The same in those of Anthropic's Messages API."""


class Told:
    """What the script was told, and what it has seen so far."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.api: str = told["api"]
        self.base_url: str = told["base_url"]
        if self.api == "messages":  # who asks for them writes the path's version as well
            self.base_url = self.base_url.removesuffix("/v1")
        self.key: str = told["key"]
        self.model: str = told["model"]
        self.retries: int = told["retries"]
        self.pieces: int | None = told.get("pieces")
        """Of the scenario ``cancel``: those that come before the stream stands still."""

        self.seen: dict[str, Any] = {"text": "", "pieces": 0}
        self.enough = asyncio.Event()

    def access(self, address: str = "base_url") -> dict[str, Any]:
        """What a library has to know of the gateway. ``address``: what it calls its URL."""
        return {address: self.base_url, "api_key": self.key, "max_retries": self.retries}

    def say(self, piece: str | None) -> None:
        """A piece of a stream's text."""
        if piece:
            self.seen["text"] += piece
            self.seen["pieces"] += 1
            if self.seen["pieces"] == self.pieces:
                self.enough.set()


Scenario = Callable[[Told], Awaitable[None]]


def main(*scenarios: Scenario) -> None:
    """Do the scenario that each line of standard input names, and print what was seen of it. ``stream_tools`` does
    ``stream-tools``.

    An exception is what the library's user would have got: it is reported under ``errors``, with those behind it.
    """
    asyncio.run(_all({scenario.__name__.replace("_", "-"): scenario for scenario in scenarios}))


async def _all(scenarios: Mapping[str, Scenario]) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        given = json.loads(line)
        if given["scenario"] == "cancel":
            await _cancelled(scenarios, Told(given))
        else:
            await _whole(scenarios[given["scenario"]], Told(given))


async def _whole(scenario: Scenario, told: Told) -> None:
    try:
        await scenario(told)
    except Exception as error:
        told.seen["errors"] = [_shown(one) for one in _chain(error)]
    _print(told.seen)


async def _cancelled(scenarios: Mapping[str, Scenario], told: Told) -> None:
    """Cancel the task in the middle of its stream, and go on living: the end of the process would close any
    connection.

    It is done where the stream stands still: Python 3.11's wait_for, on which some libraries stand, loses a
    cancellation that comes together with a piece.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scenarios["stream"](told))
        await asyncio.wait_for(told.enough.wait(), 30)
        task.cancel()
    told.seen["cancelled"] = task.cancelled()
    _print(told.seen)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _shown(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return {
        "types": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "retry_after": response.headers.get("retry-after") if response is not None else None,
        "message": str(error),
    }


def _print(seen: dict[str, Any]) -> None:
    print(json.dumps(seen, default=str), flush=True)
