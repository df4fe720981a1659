"""Whose fault a failed attempt is: the rules of "the life of a request", as one pure function."""

from __future__ import annotations

from gateway.errors import (
    Aborted,
    BoxEjected,
    ConnectError,
    ConnectionLost,
    ErrorFrame,
    NotAdmitted,
    NotConfigured,
    OtherAnswer,
    ProtocolError,
    Reason,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.blame import Blame, blame


def is_clients_mistake(error: UpstreamError) -> bool:
    """Whether a box's answer is about the request itself, so that no other target would do better."""
    return blame(error) is Blame.CLIENT


def reason_of(error: UpstreamError) -> Reason:
    """Which of the closed list of reasons a box's failure stands for."""
    match blame(error):
        case Blame.LOAD:
            return Reason.BACKEND_SATURATED
        case Blame.PAIR:
            return Reason.ADAPTER_UNAVAILABLE
        case _:
            return error.reason


_PUBLIC: tuple[tuple[type[UpstreamError], str], ...] = (
    (ConnectError, "no connection"),
    (ConnectionLost, "the connection broke off"),
    (UpstreamTimeout, "no answer in time"),
    (BoxEjected, "no answer in time"),
    (ProtocolError, "its answer was not valid"),
    (ErrorFrame, "it answered with an error"),
    (Aborted, "it gave up on the request"),
    (NotConfigured, "it is not configured"),
    (OtherAnswer, "what was to go on with it said something else"),
    (NotAdmitted, "skipped: circuit open"),
)


def public_text(error: UpstreamError) -> str:
    """What a client may hear of a failure: no addresses, no words of an upstream."""
    if isinstance(error, UpstreamStatus):
        return f"status {error.status}"
    return next((text for kind, text in _PUBLIC if isinstance(error, kind)), "it failed")
