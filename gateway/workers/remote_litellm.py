"""The watcher's LiteLLM worker, as a worker of the data plane reaches it: over the same socket."""

from __future__ import annotations

from gateway.upstream.origin import Origin


class RemoteLitellm:
    """``alive``: as the watcher last said."""

    def __init__(self) -> None:
        self.origin = Origin("unix", "localhost", 0, "/nowhere", "/v1")
        self.alive = False

    def follow(self, path: str, *, alive: bool) -> None:
        """It listens there."""
        self.origin = Origin("unix", "localhost", 0, path, "/v1")
        self.alive = alive

    def start(self) -> None:
        """The watcher does."""

    async def close(self) -> None:
        """The watcher does."""
