"""Keeps the LiteLLM worker alive: a process of its own, so that neither its import nor its CPU time is the gateway's.

The gateway binds the Unix socket and hands it over, so that the socket outlives the worker: what connects while a
worker starts waits in the socket's backlog instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from gateway.observe.alarms import Alarms
from gateway.tasks import TaskSet
from gateway.upstream.origin import Origin

log = logging.getLogger(__name__)

BASE_HEADER = "x-failsoft-api-base"
KEY_HEADER = "x-failsoft-api-key"
"""The private headers by which a request tells the worker whom to ask, and with which key."""

HEARTBEAT_S = 1.0
"""How often a worker whose event loop turns says so."""

SILENCE_S = 15.0
"""A worker silent for so long hangs. Far more than the translation of any one answer takes."""

START_S = 120.0
"""Until the first heartbeat. The import alone takes 3 s of CPU on a fast core."""

STEADY_S = 10.0
"""A worker that died younger than this is started again with back-off, an older one at once."""

ALARM = "litellm_worker_down"

_OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
}
"""LiteLLM would fetch all three over the network as it is imported or at its first use."""

_LONGEST_PATH = 100
"""Bytes. A Unix socket's address holds 108 on Linux, 104 on macOS."""


class _WorkerDied(Exception):
    """It died young."""


class LitellmProcess:
    """One LiteLLM worker, started again whenever it dies or hangs, until :meth:`close`.

    ``state_dir``: an existing folder that only the gateway's user may enter; the socket lies in a new one in it.
    ``command`` replaces the worker's command line; the socket's ``--fd N`` is added.
    """

    def __init__(
        self,
        state_dir: Path,
        alarms: Alarms,
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "gateway.upstream.litellm_worker"),
    ) -> None:
        self._alarms = alarms
        self._command = command
        self._folder = _private_folder(state_dir)
        path = self._folder / "worker.sock"
        self.origin = Origin("unix", "localhost", 0, str(path), "/v1")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(2048)
        self._tasks = TaskSet()
        self._ready = asyncio.Event()
        self.alive = False
        """Whether a worker runs or starts, so that a request is worth its wait; False between two tries at one."""
        self.pid: int | None = None
        """Of the worker's process; None while there is none."""

    def start(self) -> None:
        """Start the worker, and keep it alive from now on."""
        # At once, not when its process is there: who asks from now on waits for it in the socket's backlog.
        self.alive = True
        self._tasks.spawn(self._keep_alive(), name="litellm-worker")

    async def ready(self) -> None:
        """Wait until the worker answers requests."""
        await self._ready.wait()

    async def close(self) -> None:
        """End the worker and take the socket away."""
        await self._tasks.close()
        self.alive = False
        self._listener.close()
        self._alarms.off(ALARM, "litellm")
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep_alive(self) -> None:
        while True:
            # Jitter so that the gateways of one machine do not all import at the same moment.
            patient = AsyncRetrying(
                retry=retry_if_exception_type(_WorkerDied),
                wait=wait_exponential_jitter(multiplier=0.25, max=8, jitter=0.25),
            )
            await patient(self._live_once)

    async def _live_once(self) -> None:
        """Run one worker to its end. Raises :class:`_WorkerDied` if it came early."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.alive = True
        try:
            async with self._process() as process:
                why = await self._watch(process)
        except OSError as error:
            why = f"could not be started: {error}"
        finally:
            self.alive = False
        log.warning("the LiteLLM worker %s", why)
        self._alarms.on(ALARM, "litellm", f"the LiteLLM worker {why}: providers behind it cannot be asked")
        if loop.time() - started < STEADY_S:
            raise _WorkerDied

    async def _watch(self, process: asyncio.subprocess.Process) -> str:
        """Follow the worker's heartbeats; how it ended."""
        if process.stdout is None:
            raise RuntimeError("the worker was started without a pipe for its heartbeats")
        limit = START_S
        while True:
            try:
                async with asyncio.timeout(limit):
                    beat = await process.stdout.read(4096)
            except TimeoutError:
                return f"hung for {limit:g} s"
            if not beat:
                return f"ended with status {await process.wait()}"
            if not self._ready.is_set():
                self._ready.set()
                self._alarms.off(ALARM, "litellm")
            limit = SILENCE_S

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A running worker, which is dead when the context ends."""
        # A session of its own: Ctrl-C in a terminal goes to the gateway, which first lets running streams finish.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            "--fd",
            str(self._listener.fileno()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,
            env=os.environ | _OFFLINE,
        )
        self.pid = process.pid
        try:
            yield process
        finally:
            self.pid = None
            self._ready.clear()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


def _private_folder(state_dir: Path) -> Path:
    """A new folder that only this user may enter, with a path short enough for a socket."""
    for socket_path in state_dir.glob("litellm-*/worker.sock"):
        if not _answered(socket_path):
            shutil.rmtree(socket_path.parent, ignore_errors=True)
    parent = state_dir if len(os.fsencode(state_dir)) + 30 < _LONGEST_PATH else None
    return Path(tempfile.mkdtemp(prefix="litellm-", dir=parent))


def _answered(path: Path) -> bool:
    """Whether somebody still listens there: a gateway that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
