"""What the fault rules and the connection need to know of an answer, whatever its dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

from backend.simulator.engine import Flight
from backend.simulator.steps import Body, Do, Event, Head, Script, Until, Wait

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


Otherwise = Literal["prose", "tool", "longer", "shorter"]
"""How an answer may differ from the one that is due."""


class Dialect(ABC):
    """How one API words its errors, and what its server calls itself."""

    server: ClassVar[bytes] = b"uvicorn"

    @abstractmethod
    def error_body(
        self,
        status: int,
        message: str | None = None,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> bytes:
        """The body of an error answer. Without a message: the usual one for the status."""

    @abstractmethod
    def error_event(self, status: int, message: str | None) -> bytes:
        """An error as one server-sent event."""


class Answer(ABC):
    """One answer: what it is when healthy, and the parts that a fault rule puts together differently."""

    status = 200
    content_type = JSON
    extra = b""
    streamed = False
    model = ""
    """Who answers, where it is a model."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @abstractmethod
    def body(self, *, finish: str | None = None) -> bytes:
        """The body of a plain answer; with ``finish``, half the text and that finish reason."""

    def script(self) -> Script:
        """The healthy answer."""
        return self.plain(self.body())

    def plain(self, body: bytes) -> Script:
        """A length-delimited answer with this body."""
        yield Head(self.status, self.content_type, len(body), self.extra)
        yield Body(body)
        yield Do.END

    def opening(self) -> list[bytes]:
        """The events before any content."""
        return []

    def content(self, text: bytes) -> bytes:
        """One event with ``text``, the inside of a JSON string, as content."""
        return b""

    def closing(self, finish: str) -> list[bytes]:
        """The event with the finish reason ``finish``, and what comes after it."""
        return []

    def done(self) -> bytes:
        """The event that ends a stream."""
        return b""

    def say_otherwise(self, how: Otherwise) -> None:
        """Say something else, just as healthy. Raises ValueError where there is nothing else to say."""
        raise ValueError(f"{type(self).__name__} has no other words")

    def release(self) -> None:  # noqa: B027  # most have nothing to give back
        """The answer is over, in whatever way. Called once."""


class Fixed(Answer):
    """An answer without a model: a health check, a list, an error."""

    def __init__(
        self, dialect: Dialect, body: bytes, *, status: int = 200, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        super().__init__(dialect)
        self._body = body
        self.status = status
        self.content_type = content_type
        self.extra = extra

    def body(self, *, finish: str | None = None) -> bytes:
        """The same, whatever is asked."""
        return self._body


class Later(Fixed):
    """One that comes when something has happened."""

    def __init__(self, dialect: Dialect, body: bytes, *, after: Until | Wait, content_type: bytes = JSON) -> None:
        super().__init__(dialect, body, content_type=content_type)
        self._after = after

    def script(self) -> Script:
        """First the waiting, then the answer."""
        yield self._after
        yield from super().script()


class Acting(Fixed):
    """Something is done as the answer is due, and takes so many seconds; not where a fault takes the answer's place."""

    def __init__(self, dialect: Dialect, said: bytes, act: Callable[[], float | None], *, content_type: bytes) -> None:
        super().__init__(dialect, said, content_type=content_type)
        self._act = act

    def script(self) -> Script:
        """First the deed, then the answer."""
        if seconds := self._act():
            yield Wait(seconds)
        yield from super().script()


class Generated(Answer):
    """A model's answer, plain or as a stream."""

    def __init__(self, dialect: Dialect, flight: Flight, *, streamed: bool) -> None:
        super().__init__(dialect)
        self.flight = flight
        self.streamed = streamed
        if streamed:
            self.content_type = EVENTS

    @abstractmethod
    def bursts(self) -> Iterator[list[bytes]]:
        """The stream's events, those of one engine step together."""

    def script(self) -> Script:
        """The healthy answer, at the pace of its flight."""
        flight = self.flight
        if not self.streamed:
            yield from flight.until_whole()
            yield from self.plain(self.body(finish="abort" if flight.aborted else None))
            return
        yield Head(self.status, self.content_type, None, self.extra)
        for number, burst in enumerate(self.bursts()):
            yield from flight.until_token(number)
            if flight.aborted:
                break
            for event in burst:
                yield Event(event)
        if flight.aborted:
            for event in self.closing("abort"):
                yield Event(event)
        else:
            flight.finished()
        yield Do.END

    def release(self) -> None:
        """Give the place in the engine back."""
        self.flight.leave()
