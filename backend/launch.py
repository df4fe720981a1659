"""How a real vLLM box is started on a CPU, watched until it gives a token, killed in part or whole, and cleaned up.

The flags and variables are those with which vLLM 0.32's CPU build is known to work. ``vllm_command`` decides them and
touches nothing; ``VllmBox`` runs what it says.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx2

BASE_MODEL: Final = "base"
ENGINE_PYTHON: Final = Path(__file__).parent.parent / ".venv-engine" / "bin" / "python"
"""The interpreter that `make engine` sets up. Not resolved: a virtual environment is found by the path of its link."""

_ENVIRONMENT: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two boxes would else bind to the same cores
    "OMP_NUM_THREADS": "1",  # a tiny model gains nothing from more, and two boxes share a small machine
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "PYTHONSAFEPATH": "1",  # the folder that we happen to be in holds modules of its own
    "PYTHONPATH": "",
}
_ENGINE_TITLE: Final = b"VLLM::EngineCore"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class BoxError(Exception):
    """A box did not start, or is not in a state for what was asked of it. Carries the end of its log."""


@dataclass(frozen=True, slots=True)
class BoxPlan:
    """What one vLLM server is to serve, and how much of it at once.

    ``max_cpu_loras`` has to hold all ``adapters``: one that was evicted from there is read from disk again in the
    engine's step, and ends the engine if that fails. ``tool_call_parser``: vLLM refuses `tools` without one.
    """

    model: Path
    port: int
    host: str = "127.0.0.1"
    served_name: str = BASE_MODEL
    adapters: Mapping[str, Path] = field(default_factory=dict)
    max_loras: int = 2
    max_cpu_loras: int = 8
    max_lora_rank: int = 16
    max_model_len: int = 1024
    max_num_seqs: int = 32
    tool_call_parser: str | None = "llama3_json"
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """A program with its arguments, and the variables to set beside those that are inherited."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def vllm_command(plan: BoxPlan, *, python: Path = ENGINE_PYTHON) -> VllmCommand:
    """The command line and environment of a CPU box. Raises ValueError where the adapters outnumber the CPU pool."""
    if len(plan.adapters) > plan.max_cpu_loras:
        raise ValueError(f"max_cpu_loras is {plan.max_cpu_loras}, too few for {len(plan.adapters)} adapters")
    # `vllm serve` looks for a distribution named `vllm`, which the CPU build is not. It would take the model as its
    # first argument; the module goes by `--model` alone.
    arguments = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    arguments += ["--model", str(plan.model), "--served-model-name", plan.served_name]
    arguments += ["--host", plan.host, "--port", str(plan.port)]
    arguments += ["--max-model-len", str(plan.max_model_len), "--max-num-seqs", str(plan.max_num_seqs)]
    # fp32: greedy answers are then the same whatever else is in the batch. Eager: compiling costs minutes at start.
    arguments += ["--dtype", "float32", "--enforce-eager", "--enable-server-load-tracking"]
    if plan.tool_call_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", plan.tool_call_parser]
    if plan.adapters:
        arguments += ["--enable-lora", "--max-loras", str(plan.max_loras)]
        arguments += ["--max-cpu-loras", str(plan.max_cpu_loras), "--max-lora-rank", str(plan.max_lora_rank)]
        arguments += ["--lora-modules", *(f"{name}={path}" for name, path in plan.adapters.items())]
    return VllmCommand((*arguments, *plan.extra), _ENVIRONMENT)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


class VllmBox:
    """One vLLM server: an API process that clients talk to, its child the engine, and the engine's child the worker.

    A context manager: whatever happens, the whole family has ended when the block is left. Not for several threads.
    """

    def __init__(self, name: str, plan: BoxPlan, *, log: Path, python: Path = ENGINE_PYTHON) -> None:
        self.name = name
        self.plan = plan
        self.log = log
        self._command = vllm_command(plan, python=python)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's base URL; the same after a restart."""
        return f"http://{self.plan.host}:{self.plan.port}"

    @property
    def running(self) -> bool:
        """Whether the API process is there."""
        process = self._process
        if process is None or process.returncode is not None:
            return False
        # It is not reaped here: as long as it is a zombie, nobody else can get the id of its process group.
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int:
        """The API process's id. Raises BoxError if it does not run."""
        if self._process is None or not self.running:
            raise self._error("does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the server, again if it has ended, without waiting for it; its log goes on in the same file.

        To be called from the main thread: Linux ends the server with the thread that started it. Raises BoxError if it
        runs already, OSError if it cannot be started.
        """
        if self.running:
            raise self._error("runs already")
        self.kill()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._command.environment},
                start_new_session=True,
                preexec_fn=_tie_to_parent(),
            )

    def wait_until_ready(self, timeout_s: float = 300.0) -> None:
        """Block until the base model has given a token: an open port and a 200 from `/health` come before that.

        Raises BoxError if the process ends or the time is over.
        """
        until = time.monotonic() + timeout_s
        with httpx2.Client(base_url=self.url, timeout=30.0, trust_env=False) as client:
            while not (_is_healthy(client) and _gives_a_token(client, self.plan.served_name)):
                if not self.running:
                    raise self._error("ended while it started")
                if time.monotonic() > until:
                    raise self._error(f"gave no token within {timeout_s:.0f} s")
                time.sleep(0.2)

    def engine_pid(self) -> int:
        """The engine process's id. Raises BoxError if there is none."""
        for child in _children(self.pid):
            if _command_line(child).startswith(_ENGINE_TITLE):
                return child
        raise self._error("has no engine process")

    def kill_engine(self) -> None:
        """SIGKILL to the engine process only, as the out-of-memory killer would. Raises BoxError if there is none."""
        os.kill(self.engine_pid(), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL to the whole family at once, and wait for its end. Sweeps up what is left where it has ended.

        An engine outlives an API process that was killed alone.
        """
        if self._process is None or self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session, so the group's id is its own
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM to the API process, without waiting.

        vLLM then ends its engine at once, unless it was told to drain. What runs is aborted or, as often, falls silent:
        the API process ends only when the last of its clients has left.
        """
        os.kill(self.pid, signal.SIGTERM)

    def wait_until_ended(self, timeout_s: float = 30.0) -> int:
        """Block until the API process has ended by itself, and return its exit status, negative for a signal.

        Raises BoxError after ``timeout_s``, or if it was never started.
        """
        if self._process is None:
            raise self._error("was never started")
        if not self._ends_within(timeout_s):
            raise self._error(f"had not ended within {timeout_s:.0f} s")
        self.kill()
        return self._process.returncode

    def stop(self, grace_s: float = 10.0) -> None:
        """End it in good order, and the hard way after ``grace_s`` seconds. Does nothing where nothing runs."""
        if self.running:
            self.terminate()
            self._ends_within(grace_s)
        self.kill()

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _error(self, what: str) -> BoxError:
        return BoxError(f"{self.name} {what}; its log {self.log} ends with:\n{self.log_tail()}")


def _is_healthy(client: httpx2.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx2.HTTPError:
        return False


def _gives_a_token(client: httpx2.Client, model: str) -> bool:
    body = {"model": model, "prompt": "The agent", "max_tokens": 1}
    try:
        return client.post("/v1/completions", json=body).status_code == 200
    except httpx2.HTTPError:
        return False


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def _tie_to_parent() -> Callable[[], None] | None:
    """What the new process runs before its program, so that it does not outlive us (prctl(2), PR_SET_PDEATHSIG)."""
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call above took effect
            os.kill(os.getpid(), signal.SIGKILL)

    return tie
