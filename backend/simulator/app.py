"""What the server asks of whatever it serves: a vLLM box or a provider."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from backend.simulator.answer import Answer, Dialect, Fixed
from backend.simulator.journal import Entry
from gateway.errors import RequestError


class App(ABC):
    """Requests in, healthy answers out; no socket."""

    dialect: Dialect
    generating: frozenset[str]
    """The paths where a model answers: fault rules act there unless they name a path."""

    @abstractmethod
    def answer(self, entry: Entry) -> Answer:
        """The healthy answer to a request; also writes the model it names into ``entry``. Raises RequestError."""

    def started(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: B027  # most have nothing to run by themselves
        """The server's loop runs. Called once, before any request."""

    def hang(self, hanging: bool) -> None:  # noqa: B027
        """Whether what is served stands still from here on. Called again without a change."""

    def state(self) -> dict[str, Any]:
        """What it adds to ``GET /simulator/state``."""
        return {}

    def refusal(self, error: RequestError) -> Answer:
        """What a client is told of its mistake."""
        body = self.dialect.error_body(error.status, error.message, type=error.type, param=error.param, code=error.code)
        return Fixed(self.dialect, body, status=error.status)
