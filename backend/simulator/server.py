"""The server: sockets, connections, and the states of the process as a whole."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.simulator.answer import Answer, Fixed
from backend.simulator.app import App
from backend.simulator.connection import Connection
from backend.simulator.control import PREFIX, Control
from backend.simulator.faults import Rule, Rules
from backend.simulator.journal import Entry, Journal
from backend.simulator.steps import Script
from gateway.errors import RequestError
from gateway.tasks import TaskSet

BACKLOG = 2048
SWEEP_S = 0.5
DYING_S = 2.0
"""Without a drain, a box is gone two seconds after SIGTERM (seen)."""


class Loading(StrEnum):
    """What a box does while its model loads."""

    REFUSE = "refuse"
    UNAVAILABLE = "unavailable"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server behaves, whatever it serves."""

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    start_delay_s: float = 0.0
    loading: Loading = Loading.UNAVAILABLE
    keep_alive_s: float = 5.0
    shutdown_timeout_s: float = 0.0
    journal_capacity: int = 10_000
    seed: int = 0
    tls: ssl.SSLContext | None = None


class Server:
    """Serves one app on one port, and its control endpoints on a second one that no fault closes."""

    def __init__(self, app: App, settings: ServerSettings, rules: Rules) -> None:
        self.loop = asyncio.get_running_loop()
        self._app = app
        self._settings = settings
        self._rules = rules
        self._journal = Journal(settings.journal_capacity, time.monotonic)
        self._control = Control(app.dialect, rules, self._journal, state=self.state, changed=self._rules_changed)
        self._connections: set[Connection] = set()
        self._held: set[Connection] = set()
        self._opened = 0
        self._running = 0
        self._loading: Loading | None = None
        self._frozen = False
        self._frozen_healthy = False
        self._draining = False
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._control_listener: asyncio.Server | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stopped = asyncio.Event()
        self._tasks = TaskSet()
        self.port = settings.port
        self.control_port = settings.control_port

    async def start(self) -> None:
        """Open both ports. Raises OSError."""
        settings = self._settings
        self._app.started(self.loop)
        self._control_listener = await self.loop.create_server(
            self._connection, sock=listening_socket(settings.host, settings.control_port)
        )
        self.control_port = self._control_listener.sockets[0].getsockname()[1]
        if settings.start_delay_s:
            self._loading = settings.loading
            self.loop.call_later(settings.start_delay_s, self._loaded)
        # Bound in any case, so that the port is known and is ours.
        self._socket = sock = listening_socket(settings.host, settings.port)
        self.port = sock.getsockname()[1]
        await self._attach(sock)
        if self._loading is Loading.REFUSE:
            self._stop_listening(cut=False)
        self._rules_changed()
        self._sweep()

    async def wait(self) -> None:
        """Until ``shut_down`` has done its work."""
        await self._stopped.wait()
        await self._tasks.close()
        for listener in (self._listener, self._control_listener):
            if listener is not None:
                listener.close()
        for connection in tuple(self._connections):
            connection.transport.abort()

    def stop(self) -> None:
        """At once."""
        self._stopped.set()

    def shut_down(self) -> None:
        """SIGTERM, as vLLM takes it: with a shutdown time-out running answers finish, without they end in ``abort``."""
        if self._draining:
            self._stopped.set()
            return
        self._draining = True
        drain_s = self._settings.shutdown_timeout_s
        if not drain_s:
            self._stop_listening(cut=False)
            for connection in tuple(self._connections):
                connection.wind_down()
        self.loop.call_later(drain_s or DYING_S, self._stopped.set)
        self._stop_when_idle()

    def state(self) -> dict[str, Any]:
        """For ``GET /simulator/state``."""
        return {
            "pid": os.getpid(),
            "connections": sum(not connection.asked_control for connection in self._connections),
            "running": self._running,
            "requests": self._journal.total,
            "listening": self._socket is not None,
            "frozen": self._frozen,
            "loading": self._loading is not None,
            "draining": self._draining,
            **self._app.state(),
        }

    # What connections ask of their host

    def opened(self, connection: Connection) -> None:
        """Accepted."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """Gone."""
        self._connections.discard(connection)
        self._held.discard(connection)

    def arrived(self, connection: Connection, method: str, path: str) -> Entry:
        """The head of a request is there; control requests leave no trace."""
        if path.startswith(PREFIX):
            connection.asked_control = True
            return Entry(0, connection.number, method, path, time.monotonic())
        self._running += 1
        return self._journal.begin(connection.number, method, path)

    def begin(self, entry: Entry) -> tuple[Answer, Script]:
        """The answer, and the script that a rule makes of it."""
        answer = self._answer(entry)
        rule = self._rules.pick(entry, self._app.generating) if self._rules and entry.id else None
        if rule is None:
            return answer, answer.script()
        entry.fault = rule.fault
        return answer, rule.script(answer)

    def over(self, entry: Entry, answer: Answer | None, *, client_left: bool) -> None:
        """Count it out."""
        if answer is not None:
            answer.release()
        if entry.id:
            self._running -= 1
            self._journal.end(entry, client_left=client_left)

    def holds(self, connection: Connection, entry: Entry) -> bool:
        """Whether this answer has to stand still for now."""
        if not (self._frozen or self._loading is Loading.HANG) or not entry.id:
            return False
        if self._frozen and self._frozen_healthy and entry.path not in self._app.generating:
            return False
        self._held.add(connection)
        return True

    # The states of the process

    def _answer(self, entry: Entry) -> Answer:
        if not entry.id:
            return self._control.answer(entry)
        if self._loading is Loading.UNAVAILABLE:
            return self._error(503, "The model is still loading.")
        if self._draining and entry.path in self._app.generating:
            return self._error(500, "cannot schedule new futures after shutdown")
        try:
            return self._app.answer(entry)
        except RequestError as error:
            return self._app.refusal(error)

    def _error(self, status: int, message: str) -> Answer:
        return Fixed(self._app.dialect, self._app.dialect.error_body(status, message), status=status)

    def _loaded(self) -> None:
        self._loading = None
        self._release_held()
        if self._rules.server_fault("refuse") is None:
            self._listen()

    def _rules_changed(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        freeze = self._rules.server_fault("freeze")
        self._frozen = freeze is not None
        self._frozen_healthy = freeze is not None and bool(freeze.parameters.get("healthy"))
        self._app.hang(self._frozen)
        self._release_held()
        self._later(freeze, self._thaw)
        refuse = self._rules.server_fault("refuse")
        if refuse is not None:
            self._stop_listening(cut=bool(refuse.parameters.get("cut", True)))
            self._later(refuse, self._listen)
        elif self._loading is not Loading.REFUSE and not self._draining:
            self._listen()

    def _later(self, rule: Rule | None, ended: Callable[[], None]) -> None:
        if rule is not None and (seconds := rule.parameters.get("seconds")) is not None:
            self._timers.append(self.loop.call_later(seconds, ended))

    def _thaw(self) -> None:
        self._frozen = False
        self._app.hang(False)
        self._release_held()

    def _release_held(self) -> None:
        held, self._held = self._held, set()
        for connection in held:
            connection.go_on()

    def _stop_listening(self, *, cut: bool) -> None:
        self._socket = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if cut:
            for connection in tuple(self._connections):
                if not connection.asked_control:
                    connection.reset()

    def _listen(self) -> None:
        """The kernel takes connections from here on; who asked for it need not wait for the rest."""
        if self._socket is None:
            self._socket = listening_socket(self._settings.host, self.port)
            self._tasks.spawn(self._attach(self._socket), name="listen")

    async def _attach(self, sock: socket.socket) -> None:
        listener = await self.loop.create_server(self._connection, sock=sock, ssl=self._settings.tls)
        if self._socket is sock:
            self._listener = listener
        else:
            listener.close()

    def _connection(self) -> Connection:
        self._opened += 1
        return Connection(self, self._opened)

    def _sweep(self) -> None:
        """Close what has been idle for too long, as uvicorn does."""
        before = self.loop.time() - self._settings.keep_alive_s
        for connection in tuple(self._connections):
            if connection.idle_since is not None and connection.idle_since < before and not self._frozen:
                connection.transport.close()
        self.loop.call_later(SWEEP_S, self._sweep)

    def _stop_when_idle(self) -> None:
        if not self._running:
            self._stopped.set()
        else:
            self.loop.call_later(0.01, self._stop_when_idle)


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
