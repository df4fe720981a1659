"""The addresses that an upstream's DNS name stands for now, looked up again while it is used.

A name comes to mean another machine when a pod is made anew or a box is moved, and the old machine may go on answering
for a while. So a connection is kept only as long as the name still means where it leads.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from gateway.tasks import TaskSet
from gateway.upstream.origin import Origin

LOOK_AGAIN_S = 2.0
"""Between two looks at a name that is in use. Resolvers and name servers may hold an answer for longer."""

PATIENCE_S = 0.3
"""How long a new connection waits for a look while other addresses are known: name servers that are away are silent for
seconds, and are no reason to take a box for gone."""

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, the best first. Raises socket.gaierror."""


class FollowedName:
    """One name, to be used from one event loop. ``looked`` is called after each look."""

    def __init__(self, host: str, port: int, look_up: LookUp, looked: Callable[[], None]) -> None:
        self.host = host
        self.port = port
        self.addresses: tuple[str, ...] = ()
        """Those of the last look that had an answer, the best first."""
        self._look_up = look_up
        self._looked = looked
        self._tasks = TaskSet()
        self._look: asyncio.Task[None] | None = None
        self._look_at = -math.inf
        self._error: OSError | UnicodeError | None = None

    @classmethod
    def of(cls, origin: Origin, look_up: LookUp, looked: Callable[[], None]) -> Self | None:
        """That of ``origin``; None where there is nothing to look up."""
        if origin.uds is not None or _is_address(origin.host):
            return None
        return cls(origin.host, origin.port, look_up, looked)

    def means(self, address: str | None) -> bool:
        """Whether ``address`` is one of those that it has."""
        return address in self.addresses

    def used(self, now: float) -> None:
        """It is in use: look again, beside the requests, if it is time."""
        if now >= self._look_at:
            self._begin(now)

    async def current(self, now: float) -> tuple[str, ...]:
        """Its addresses, looked up if it is time. Where no name server answers, those known from before.

        :raises socket.gaierror: it has no address, and had none before.
        """
        if not self.addresses:
            # Others may wait for the same look.
            await asyncio.shield(self._begin(now))
        elif now >= self._look_at:
            await asyncio.wait([self._begin(now)], timeout=PATIENCE_S)
        if not self.addresses and self._error is not None:
            raise self._error
        return self.addresses

    async def close(self) -> None:
        """Look no more."""
        await self._tasks.close()

    def _begin(self, now: float) -> asyncio.Task[None]:
        """The look that runs, or a new one: however many ask, one question is on its way."""
        if self._look is None or self._look.done():
            self._look_at = now + LOOK_AGAIN_S
            self._look = self._tasks.spawn(self._ask(), name=f"look-up of {self.host}")
        return self._look

    async def _ask(self) -> None:
        try:
            found = tuple(await self._look_up(self.host, self.port))
        except (OSError, UnicodeError) as error:
            self._error = error
        else:
            self.addresses = found
        self._looked()


async def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, in a thread of the event loop's."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
