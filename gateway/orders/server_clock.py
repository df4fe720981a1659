"""What the store's clock says, as far as this gateway knows: heard now and then, carried on by the monotonic clock.

So neither a jump of this machine's wall clock nor the difference between two machines' moves anything.
"""

from __future__ import annotations

from gateway.clock import wall_s


class ServerClock:
    """``now`` is monotonic, in seconds, everywhere."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def heard(self, server_ms: int, now: float) -> None:
        """The store has just said that it is ``server_ms``, in Unix milliseconds."""
        self._ahead_ms = server_ms - now * 1000

    def ms(self, now: float) -> int:
        """Unix milliseconds by the store's clock; by this machine's as long as the store was never heard."""
        return int(wall_s() * 1000 if self._ahead_ms is None else self._ahead_ms + now * 1000)
