"""A port where connecting hangs, where a box was listening a moment ago."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

FILLERS = 8
"""A backlog of zero still takes one or two connections; more attempts than that stay unanswered."""


@contextlib.contextmanager
def syn_black_hole(port: int) -> Iterator[None]:
    """The machine behind the address is gone: the listener's queue is full, so the kernel drops every SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(FILLERS):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", port))
        yield
