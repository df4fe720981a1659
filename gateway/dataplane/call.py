"""One HTTP request while it is answered, and the reasons for which it may have to end before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.accounts.account import Ticket
from gateway.dataplane.attempt import Answer
from gateway.dataplane.marks import Headers, Mark, answer_headers
from gateway.errors import UpstreamError
from gateway.policy.compiled import CompiledPolicy
from gateway.upstream.provider_request import Endpoint

MAX_ID = 128
"""Characters of a request id that a client may choose; any other gets one of ours."""

SMALL_BODY_BYTES = 64 * 1024
"""So much of a body that nobody wants is read and dropped for the sake of keeping the connection."""


class ClientLeft(Exception):
    """The client closed its connection, or does not read any more: there is nobody to answer."""


class Call:
    """One request as it came in, with the policy that was in force then. To be made in the task that answers it.

    ``received``: bytes of its body so far while that is being read, else None; ``has_body``: all of it was read.
    ``answered``: the answer's head is on its way.
    ``endpoint``: what was asked for, once that is known.
    ``stream``: what is being relayed. ``attempts``: how many were made. ``rate_headers``: how its limits stand.
    ``cross_origin``: what a browser is to know, where pages of other origins may ask.
    ``ticket``: what it was let in by, where its customer has limits. ``ended_by``: why it was ended from outside.
    ``seeks_rest``: its stream broke, and the rest of it is asked for; ``cut_off``: it is not to be, any more.
    """

    __slots__ = (
        "_headers",
        "answered",
        "attempts",
        "client_id",
        "clock",
        "cross_origin",
        "cut_off",
        "ended_by",
        "endpoint",
        "has_body",
        "id",
        "loop",
        "policy",
        "rate_headers",
        "received",
        "seeks_rest",
        "stream",
        "task",
        "ticket",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        headers: Iterable[tuple[bytes, bytes]],
        id: str,
        policy: CompiledPolicy | None,
    ) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a request is answered in a task")
        self.task = task
        self.loop = loop
        self.clock = loop.time
        self.id = id
        self.policy = policy
        self.attempts = 0
        self.answered = False
        self.rate_headers: Headers | None = None
        self.cross_origin: Headers | None = None
        self.ticket: Ticket | None = None
        self.received: int | None = None
        self.has_body = False
        self.stream: Answer | None = None
        self.seeks_rest = False
        self.cut_off = False
        self.endpoint: Endpoint | None = None
        self.ended_by: Exception | None = None
        self._headers: dict[bytes, bytes] = dict(headers)
        sent = self._headers.get(b"x-request-id")
        self.client_id = sent.decode("ascii") if sent and len(sent) <= MAX_ID and _printable(sent) else id

    def header(self, name: bytes) -> bytes:
        """The value of a (lower-case) header, the last one where there are several; empty where there is none."""
        return self._headers.get(name, b"")

    def headers(self, served_by: str, mark: Mark | None = None) -> Headers:
        """What every answer says in its head."""
        version = "none" if self.policy is None else str(self.policy.version)
        headers = answer_headers(
            request_id=self.client_id, served_by=served_by, attempts=self.attempts, policy=version, mark=mark
        )
        if self.rate_headers is not None:
            headers += self.rate_headers
        if self.cross_origin is not None:
            headers += self.cross_origin
        return headers

    def end(self, why: Exception) -> None:
        """Cancel the task; :meth:`why_cancelled` then gives ``why``. The first reason stays."""
        if self.ended_by is None:
            self.ended_by = why
            self.task.cancel()

    def cut(self, error: UpstreamError) -> None:
        """Have the stream that is its answer break with ``error``, as it stands; what is there to its end stays whole.

        One that waits for its rest is told that there is none, by the cancellation of what it waits in.
        """
        self.cut_off = True
        if self.stream is not None:
            self.stream.abort(error)
        elif self.seeks_rest:
            self.end(error)

    def over(self, tokens: int = 0) -> None:
        """Its customer may have another one instead: the answer took ``tokens``, or there was none. Idempotent."""
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            ticket.end(tokens, self.clock())

    def client_left(self) -> None:
        """The connection is gone."""
        self.end(ClientLeft())

    def why_cancelled(self, error: asyncio.CancelledError) -> BaseException:
        """What a cancellation stands for: the reason given to :meth:`end`, or itself where it came from elsewhere."""
        if self.ended_by is None:
            return error
        self.task.uncancel()
        return self.ended_by

    @property
    def owes_body(self) -> bool:
        """Whether more of the body may be on its way than is worth reading for an answer that does not need it."""
        if self.has_body:
            return False
        length = self.header(b"content-length")
        if length and len(length) < 19 and length.isdigit():
            return int(length) > SMALL_BODY_BYTES
        return bool(length or self.header(b"transfer-encoding"))

    @property
    def heard_of_client(self) -> int | None:
        """A count that grows with all that the client sends or takes; None while it is not the client's turn."""
        if self.received is not None:
            return self.received
        stream = self.stream
        if stream is None or stream.exchange is None or stream.guard is None or stream.exchange.waiting:
            return None
        return stream.guard.events


def _printable(value: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in value)
