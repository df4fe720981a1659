"""Whose fault a failed attempt at a box is."""

from __future__ import annotations

import pytest

from gateway.errors import (
    Aborted,
    BoxEjected,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorFrame,
    InternalFault,
    NameNotResolved,
    NotAdmitted,
    OtherAnswer,
    PoolExhausted,
    ProtocolError,
    ServerGone,
    ShuttingDown,
    TLSError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.blame import Blame, blame

QUEUE_FULL = b'{"error": {"message": "The engine is currently busy. Please try again later.", "code": 503}}'

CASES: list[tuple[UpstreamError, Blame]] = [
    (UpstreamStatus(400), Blame.CLIENT),
    (UpstreamStatus(413), Blame.CLIENT),
    (UpstreamStatus(422), Blame.CLIENT),
    (ErrorFrame("too long", status=400), Blame.CLIENT),
    (UpstreamStatus(401), Blame.BOX_UNAUTHORIZED),
    (UpstreamStatus(403), Blame.BOX_UNAUTHORIZED),
    (UpstreamStatus(404), Blame.PAIR),
    (UpstreamStatus(404, b"<html>404 Not Found</html>"), Blame.PAIR),
    (UpstreamStatus(404, b'{"error": {"message": "gone", "param": "model", "code": 404}}'), Blame.PAIR),
    (UpstreamStatus(404, b'{"error": {"message": "The model `x` does not exist. Valid aliases: base."}}'), Blame.PAIR),
    (UpstreamStatus(404, b'{"object": "error", "message": "The model `x` does not exist.", "code": 404}'), Blame.PAIR),
    (UpstreamStatus(404, b'{"error": {"message": "x", "code": "model_not_found"}}'), Blame.PAIR),
    (UpstreamStatus(404, b'{"detail": "Not Found"}'), Blame.CLIENT),
    (UpstreamStatus(404, b'{"error": {"message": "Response with id \'r\' not found.", "param": "id"}}'), Blame.CLIENT),
    (UpstreamStatus(404, b"[1]"), Blame.PAIR),
    (UpstreamStatus(404, b"{}"), Blame.PAIR),
    (UpstreamStatus(404, b'{"error": "Not Found"}'), Blame.PAIR),
    (ErrorFrame("no such model", status=404), Blame.PAIR),
    (UpstreamStatus(429), Blame.LOAD),
    (UpstreamStatus(503, QUEUE_FULL), Blame.LOAD),
    (UpstreamStatus(503, b"", retry_after_s=3.0), Blame.LOAD),
    (ErrorFrame("The engine is currently busy.", status=503), Blame.LOAD),
    (UpstreamStatus(503, b"engine dead"), Blame.BOX),
    (ErrorFrame("dead", status=503), Blame.BOX),
    (UpstreamStatus(500), Blame.BOX),
    (UpstreamStatus(302), Blame.BOX),
    (ErrorFrame("EngineCore encountered an issue", status=500), Blame.BOX),
    (ErrorFrame("no code at all"), Blame.BOX),
    (Aborted("abort"), Blame.BOX),
    (BoxEjected("hung"), Blame.BOX),
    (UpstreamTimeout("silence"), Blame.BOX),
    (ConnectionLost("reset"), Blame.BOX),
    (ProtocolError("HTML"), Blame.BOX),
    (ConnectTimeout("nobody answered"), Blame.BOX),
    (ConnectError("refused"), Blame.BOX_REFUSES),
    (ServerGone("refused after a reset"), Blame.BOX_REFUSES),
    (NameNotResolved("no address"), Blame.BOX_REFUSES),
    (TLSError("expired"), Blame.BOX_REFUSES),
    (PoolExhausted("our limit"), Blame.NOBODY),
    (NotAdmitted("trial"), Blame.NOBODY),
    (OtherAnswer("another call"), Blame.NOBODY),
    (InternalFault("a defect"), Blame.NOBODY),
    (ShuttingDown("ending"), Blame.NOBODY),
]


@pytest.mark.parametrize(("error", "whose"), CASES, ids=lambda case: repr(case) if isinstance(case, Exception) else "")
def test_an_error_moves_only_the_breaker_of_who_is_to_blame(error: UpstreamError, whose: Blame) -> None:
    assert blame(error) is whose
