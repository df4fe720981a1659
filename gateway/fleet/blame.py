"""Which breaker a failed attempt at a box moves, as a pure function: whose fault an error is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from gateway.errors import (
    BoxEjected,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorFrame,
    ServerGone,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)

BUSY = b"engine is currently busy"
"""How vLLM 0.32 words its queue limit, in a 503 and, through a race, in the first event of a 200."""


MAX_ERROR_CHARS = 200
"""Of an error's text, for people; an upstream may have put anything into it."""


class Blame(Enum):
    """What an error says about the box."""

    NOBODY = auto()
    """Nothing: our own limit."""
    CLIENT = auto()
    """The request was wrong, or for what no box of its kind serves; that the box could say so is a sign of life."""
    LOAD = auto()
    """The box is full, which is not a failure."""
    PAIR = auto()
    """The box does not have this adapter; it may be well otherwise."""
    BOX = auto()
    """The box failed."""
    BOX_REFUSES = auto()
    """Nothing listens there, or not to us: there is no use in asking twice."""
    BOX_UNAUTHORIZED = auto()
    """The box refuses our key: a person has to act."""


def blame(error: UpstreamError) -> Blame:
    """What ``error``, got from a box, says about that box."""
    if error.source == "gateway":
        return Blame.NOBODY
    if isinstance(error, UpstreamStatus):
        if error.status == 404 and is_about_something_else(error.body):
            return Blame.CLIENT
        busy = error.retry_after_s is not None or BUSY in error.body
        return _of_status(error.status, busy=busy)
    if isinstance(error, ErrorFrame) and error.status is not None:
        return _of_status(error.status, busy=BUSY.decode() in str(error))
    if isinstance(error, ConnectError) and not isinstance(error, ConnectTimeout):
        return Blame.BOX_REFUSES
    return Blame.BOX


def is_about_something_else(body: bytes) -> bool:
    """Whether a 404 with this body is about anything but the model: a route that the box has not, or what was named in
    the request. vLLM 0.32 says of a model that it `does not exist`, with ``param: "model"``, and FastAPI of a route
    ``{"detail": "Not Found"}``. What is not JSON comes from something in between, and says nothing of the sort.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(said, dict):
        return False
    error = said.get("error", said)
    if not isinstance(error, dict) or not error.keys() & {"message", "detail"}:
        return False
    message = error.get("message")
    names_model = error.get("param") == "model" or error.get("code") == "model_not_found"
    return not names_model and not (isinstance(message, str) and "model" in message and "does not exist" in message)


def may_have_killed(error: UpstreamError) -> bool:
    """Whether this request may be what ended the engine: such a request is not replayed at every box."""
    if isinstance(error, ConnectionLost):
        return not error.stale
    return isinstance(error, ServerGone) or (isinstance(error, ErrorFrame | UpstreamStatus) and error.status == 500)


def is_one_adapters(error: UpstreamError) -> bool:
    """Whether a box's failure may lie with the adapter that was asked for: the box took the request, and said or did
    something wrong, or nothing. What happened to a connection happened to the box.
    """
    return not isinstance(error, ConnectError | ConnectionLost | BoxEjected)


@dataclass(frozen=True, slots=True)
class Failure:
    """All that a box learns from a failed attempt, without the error: that would keep its traceback, and with it the
    request, alive, and cannot be told to another process.

    ``one_adapters``: see :func:`is_one_adapters`. ``silent``: nothing came in time. ``unreached``: there was no
    connection. ``deadly``: the request was unanswered, and ended as if the engine had (:func:`may_have_killed`).
    """

    blame: Blame
    one_adapters: bool
    silent: bool
    unreached: bool
    deadly: bool
    text: str

    @classmethod
    def of(cls, error: UpstreamError, *, answered: bool = False) -> Failure:
        """What ``error`` comes down to; ``answered``: it came behind content."""
        return cls(
            blame(error),
            is_one_adapters(error),
            isinstance(error, UpstreamTimeout | ConnectTimeout | BoxEjected),
            isinstance(error, ConnectError),
            not answered and may_have_killed(error),
            error.for_watchers[:MAX_ERROR_CHARS],
        )


def _of_status(status: int, *, busy: bool) -> Blame:
    match status:
        case 400 | 413 | 422:
            return Blame.CLIENT
        case 401 | 403:
            return Blame.BOX_UNAUTHORIZED
        case 404:
            return Blame.PAIR
        case 429:
            return Blame.LOAD
        case 503 if busy:
            return Blame.LOAD
        case _:
            return Blame.BOX
