"""Every error that failsoft raises on purpose, in one tree.

FailsoftError
├── PolicyError                 policies that do not hold together; carries diagnostics
├── StoreError                  the policy store
│   ├── StoreUnreachable        Redis is away, refuses us, or is too slow
│   │   └── StoreReadOnly       it answers and takes no writes: a replica, a full disk, out of memory
│   ├── StoreCorrupt            what lies in the store is not a complete version
│   ├── VersionPruned           its content is no longer kept
│   ├── StateUnusable           the gateway's own state folder cannot be used
│   └── VersionConflict         `apply --base V`, and V is not the current version
├── RequestError                the client's mistake (source = client); has an HTTP status
└── UpstreamError               an attempt that failed
    ├── ConnectError            no connection came about (source = upstream)
    │   ├── NameNotResolved
    │   ├── ConnectTimeout      nobody answered the SYN, or the TLS handshake hung
    │   ├── ServerGone          the connection broke under the request, and now nobody listens
    │   └── TLSError            certificate or handshake; never downgraded
    ├── PoolExhausted           our own limit (source = gateway): not the box's fault
    ├── ConnectionLost          reset or end of file where more had to come
    ├── UpstreamTimeout         silence past a limit
    ├── ProtocolError           bytes that are not what was asked for: not HTTP, not JSON, not SSE
    │   └── TooLarge            a header block, frame or body over its bound
    ├── UpstreamStatus          an HTTP status other than 200, with its body
    ├── ErrorFrame              an error object where an answer was due
    ├── Aborted                 `finish_reason: "abort"`: the engine gave up on this request
    ├── OtherAnswer             what was to go on with a broken answer is another one (source = gateway): nobody's fault
    ├── BoxEjected              the watcher found the box hung while this attempt waited on it
    ├── NotAdmitted             the breaker's trial slot was taken between planning and asking (source = gateway)
    ├── NotConfigured           a reference such as `${KEY}` is not set: the target cannot be asked (source = gateway)
    ├── InternalFault           a defect of ours in one attempt: the next target is still asked (source = gateway)
    └── ShuttingDown            the gateway is ending (source = gateway)

``source`` says where the fault lies (``client``, ``gateway`` or ``upstream``), ``retryable`` whether another
target may be asked, ``committed`` whether content had already gone to the client, ``reason`` which of the closed
list of degradation reasons the failure stands for. Nobody downstream has to guess.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Source = Literal["client", "gateway", "upstream"]


class Reason(StrEnum):
    """Why an answer is degraded: the closed list of the design."""

    BACKEND_DOWN = "backend_down"
    BACKEND_SATURATED = "backend_saturated"
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    TTFT_BUDGET = "ttft_budget"
    CIRCUIT_OPEN = "circuit_open"
    FORCED = "forced"
    DRILL = "drill"
    STREAM_BROKEN = "stream_broken"


class FailsoftError(Exception):
    """Root of the tree."""

    source: Source = "gateway"
    retryable: bool = False
    committed: bool = False


class PolicyError(FailsoftError):
    """Policies that cannot be used. ``diagnostics`` holds every finding, not only the first."""

    def __init__(self, diagnostics: tuple[object, ...]) -> None:
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.diagnostics = diagnostics


class StoreError(FailsoftError):
    """The policy store failed us."""


class StoreUnreachable(StoreError):
    """Redis is away, refuses us, or is too slow."""

    retryable = True


class StoreReadOnly(StoreUnreachable):
    """It answers, and takes no writes: a replica, a disk or a memory that is full, too few replicas of its own."""


class StoreCorrupt(StoreError):
    """What lies in the store is not a complete version."""


class VersionPruned(StoreError):
    """What is known of the version is there, its content is no longer kept."""


class StateUnusable(StoreError):
    """The state folder cannot be used: not writable, not ours, or in use by another gateway."""


class VersionConflict(StoreError):
    """The version that a change was based on is no longer the current one."""


class RequestError(FailsoftError):
    """The client's mistake, answered in OpenAI's error envelope with ``status``."""

    source: Source = "client"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code


class UpstreamError(FailsoftError):
    """An attempt that failed before or after its answer was committed.

    ``reached``: whether the request may have been handed to the upstream (so that it may have been what killed it).
    """

    source: Source = "upstream"
    retryable = True
    reason: Reason = Reason.BACKEND_DOWN
    reached: bool = True

    @property
    def for_watchers(self) -> str:
        """What logs, events and status may say of it: nothing that a request held."""
        return str(self)


class ConnectError(UpstreamError):
    """No connection came about: refused, unreachable, no such address."""

    reached = False


class NameNotResolved(ConnectError):
    """The host name has no address."""


class ConnectTimeout(ConnectError):
    """Nobody answered within the connect time-out, or the TLS handshake did not end."""


class ServerGone(ConnectError):
    """A reused connection broke before any byte of the answer, and a fresh one was refused: had the server but closed
    an idle connection, it would have taken another. The request was sent, and may be what ended it.
    """

    reached = True


class TLSError(ConnectError):
    """The certificate does not verify, or the handshake failed."""


class PoolExhausted(UpstreamError):
    """All connections to this origin are in use: our own limit, not the upstream's fault."""

    source: Source = "gateway"
    reason = Reason.BACKEND_SATURATED
    reached = False


class ConnectionLost(UpstreamError):
    """Reset, or end of file where more had to come.

    ``stale``: it happened on a reused connection before any byte of the answer, the race that keep-alive brings.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class UpstreamTimeout(UpstreamError):
    """No (further) content within the limit."""

    reason = Reason.TTFT_BUDGET


class ProtocolError(UpstreamError):
    """Bytes that are not what was asked for."""


class TooLarge(ProtocolError):
    """A header block, a frame or a body over its bound."""


class UpstreamStatus(UpstreamError):
    """An HTTP status other than 200. What it means depends on who said it: see :mod:`gateway.dataplane.verdict`."""

    def __init__(
        self, status: int, body: bytes = b"", *, content_type: bytes = b"", retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.content_type = content_type
        self.retry_after_s = retry_after_s


class ErrorFrame(UpstreamError):
    """An error object where an answer was due: in a stream or as the body of a 200.

    ``status`` is its ``code``, ``body`` the JSON that holds it.
    """

    def __init__(self, message: str, *, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body

    @property
    def for_watchers(self) -> str:
        """Not its words, as engines and providers quote in them what they were asked."""
        code = "" if self.status is None else f" with code {self.status}"
        return f"an error object{code} (its words are in the upstream's own log)"


class Aborted(UpstreamError):
    """The engine ended the answer with ``finish_reason: "abort"``."""


class BoxEjected(UpstreamError):
    """The watcher found the box hung while a plain request waited on it."""

    reason = Reason.TTFT_BUDGET


class OtherAnswer(UpstreamError):
    """What was to go on with an answer that broke off does not fit behind it. That is how sampling is, and says nothing
    against the box."""

    source: Source = "gateway"


class NotAdmitted(UpstreamError):
    """The breaker let nobody else in: the box was not asked."""

    source: Source = "gateway"
    reason = Reason.CIRCUIT_OPEN
    reached = False


class NotConfigured(UpstreamError):
    """The target cannot be asked as its configuration is incomplete on this gateway."""

    source: Source = "gateway"
    reached = False


class InternalFault(UpstreamError):
    """A defect of the gateway's own came up in one attempt. Logged with its traceback and raised as an alarm."""

    source: Source = "gateway"
    reached = False


class ShuttingDown(UpstreamError):
    """The gateway is ending and its drain time is over."""

    source: Source = "gateway"
    retryable = False
