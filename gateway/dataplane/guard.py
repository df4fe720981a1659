"""What relays and accounts need to know of a stream's checks, whatever its format."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.errors import UpstreamError


class Guard(Protocol):
    """One stream's checks: bytes in; checked bytes, commit and failure out. See :class:`.stream_guard.StreamGuard`."""

    @property
    def committed(self) -> bool:
        """Whether content may leave."""

    @property
    def complete(self) -> bool:
        """Whether the stream has come to its end as it should."""

    @property
    def error(self) -> UpstreamError | None:
        """What it broke with."""

    @property
    def events(self) -> int:
        """How many events came that are more than a sign of life."""

    @property
    def sent(self) -> int:
        """How many may have left: the number of the next one, where events are numbered."""

    @property
    def model(self) -> str | None:
        """Who says that it answers."""

    @property
    def usage(self) -> Any:
        """What it took, as the stream says it; None while it does not."""

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave now that ``data`` has come."""

    def eof(self) -> bytes:
        """The upstream's body has ended. What is still owed to the client, if the stream was whole."""

    def lost(self, error: UpstreamError) -> bytes:
        """Reading failed with ``error``: as :meth:`eof`, but that error is what a broken stream ends with."""
