"""How long a client may be silent while the gateway waits for it: to send its body, or to read its answer.

One look at all requests every so often, as a timer for each would cost more than all else that is done for it. It
ends no request early: only from one look to the next is it known that nothing has moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from gateway.dataplane.call import Call, ClientLeft
from gateway.errors import RequestError

SILENCE_S = 60.0
"""Seconds between two steps of a client's, as in nginx (``client_body_timeout``, ``send_timeout``)."""

LOOKS = 4
"""Looks within that time; a silent client is given up at most one look late."""


class Patience:
    """Watches ``calls``, which the owner adds to and takes from; ``watch`` is to be called when one was added, unless
    it is ``watching`` already.
    """

    __slots__ = ("_calls", "_seen", "watching")

    def __init__(self, calls: Collection[Call]) -> None:
        self._calls = calls
        self._seen: dict[Call, tuple[int, float]] = {}
        self.watching = False

    def watch(self) -> None:
        """Look again and again for as long as there are calls."""
        self.watching = True
        asyncio.get_running_loop().call_later(SILENCE_S / LOOKS, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for call in tuple(self._calls):
            heard = call.heard_of_client
            if heard is None:
                continue
            count, since = before.get(call, (-1, now))
            if count != heard:
                since = now
            self._seen[call] = (heard, since)
            if now - since >= SILENCE_S:
                call.end(self._given_up(call))
        self.watching = False
        if self._calls:
            self.watch()

    @staticmethod
    def _given_up(call: Call) -> Exception:
        if call.received is None:
            return ClientLeft()
        return RequestError(
            408, f"Nothing more of the request's body came for {SILENCE_S:g} s.", code="request_timeout"
        )
