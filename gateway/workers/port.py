"""One port that several workers take connections from: a listening socket for each, all bound to it.

The kernel spreads connections over them by a hash (``SO_REUSEPORT``, Linux 3.9). Of one socket that all share, whoever
is awake first takes a whole burst of connections. The watcher holds all sockets open, and while a worker is away the
others take from its socket too, so that no connection is lost or waits. Where there is no such spreading all share one
socket.
"""

from __future__ import annotations

import socket
import sys

from gateway.errors import FailsoftError

BACKLOG = 2048


class ListenError(FailsoftError):
    """An address could not be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another address.") from error
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def share(first: socket.socket, workers: int) -> list[socket.socket]:
    """One for each worker at the address of ``first``. Raises ListenError."""
    host, port = first.getsockname()[:2]
    try:
        return sockets_at(first, workers)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port} {workers} times: {error.strerror}.") from error


def address_of(sock: socket.socket) -> str:
    """Where a socket listens, as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def sockets_at(first: socket.socket, workers: int) -> list[socket.socket]:
    """A listening socket for each worker at the address of ``first``, which is closed; or ``first`` alone.

    ``first`` has to be bound without sharing: so it was found out that nobody else has the port. Raises OSError.
    """
    if sys.platform != "linux":
        return [first]
    address, family = first.getsockname(), first.family
    first.close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(workers):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
