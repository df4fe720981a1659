"""``python -m gateway.workers``: one worker, as its watcher starts it."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket

import uvloop

from gateway.observe.log import configure_logging
from gateway.workers.worker import Place, Worker


def main() -> None:
    """Serve until the watcher says so. Descriptors come from the watcher, which alone can start one."""
    parser = argparse.ArgumentParser(prog="python -m gateway.workers", description=main.__doc__)
    for number in ("--worker", "--workers", "--line", "--control"):
        parser.add_argument(number, type=int, required=True)
    parser.add_argument("--listener", type=int, action="append", required=True)
    parser.add_argument("--drain", type=float, required=True)
    parser.add_argument("--log-format", choices=("human", "json"), required=True)
    options = parser.parse_args()
    configure_logging(options.log_format)

    async def run() -> None:
        listeners = [socket.socket(fileno=fd) for fd in options.listener]
        line, control = socket.socket(fileno=options.line), socket.socket(fileno=options.control)
        place = Place(options.worker, options.workers, options.drain)
        await Worker(place, os.environ).run(listeners, line, control)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
