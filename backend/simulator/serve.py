"""Runs a server as a process: its signals, its ready line, its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from backend.simulator.app import App
from backend.simulator.faults import Rule, Rules, parse_rules
from backend.simulator.server import Server, ServerSettings


def rules_from(texts: list[str]) -> tuple[Rule, ...]:
    """Rules given on the command line, each one JSON object or a list of them. Raises BadRule."""
    return tuple(rule for text in texts for rule in parse_rules(text.encode()))


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A server's TLS from PEM files; None without a certificate. Raises OSError (of which SSLError is one)."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def run(
    make_app: Callable[[], App],
    settings: ServerSettings,
    *,
    name: str,
    rules: tuple[Rule, ...] = (),
    exit_with_stdin: bool = False,
) -> None:
    """Serve until SIGTERM, SIGINT or, if so wished, the end of standard input. Raises OSError.

    When both ports are open, one line of JSON goes to standard output: ``name``, ``url``, ``control`` (the base URL of
    the control endpoints' own port) and ``pid``.
    """
    uvloop.run(_serve(make_app(), settings, name, rules, exit_with_stdin))


async def _serve(app: App, settings: ServerSettings, name: str, given: tuple[Rule, ...], exit_with_stdin: bool) -> None:
    rules = Rules(settings.seed)
    rules.replace(given)
    server = Server(app, settings, rules)
    await server.start()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.shut_down)
    loop.add_signal_handler(signal.SIGINT, server.stop)
    if exit_with_stdin:
        loop.add_reader(sys.stdin.fileno(), _until_end_of, sys.stdin.fileno(), server.stop)
    # What is there now stays: the collector need not look at it again.
    gc.freeze()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls is None else "https"
    ready = {
        "name": name,
        "url": f"{scheme}://{host}:{server.port}",
        "control": f"http://{host}:{server.control_port}",
        "pid": os.getpid(),
    }
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()
    await server.wait()


def _until_end_of(descriptor: int, stop: Callable[[], None]) -> None:
    if not os.read(descriptor, 4096):
        stop()
