"""How a real vLLM box is started on a CPU, watched until it gives a token, killed in part or whole, and cleaned up.

The flags and variables are those with which vLLM 0.32's CPU build is known to work. ``vllm_command`` decides them and
touches nothing; ``VllmBox`` runs what it says. Boxes out of policies are :mod:`backend.box_plan`'s.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx2

from backend.box_process import BoxError as BoxError
from backend.box_process import BoxProcess
from backend.serve_plan import ServePlan, by_interpreter
from backend.serve_plan import VllmCommand as VllmCommand
from backend.vllm_flags import release
from gateway.policy.engine_options import EngineOptions

BASE_MODEL: Final = "base"
VERSION: Final = "0.32"
ENGINE_PYTHON: Final = Path(__file__).parent.parent / ".venv-engine" / "bin" / "python"
"""The interpreter that `make engine` sets up. Not resolved: a virtual environment is found by the path of its link."""

CPU_ENVIRONMENT: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two boxes would else bind to the same cores
    "OMP_NUM_THREADS": "1",  # a tiny model gains nothing from more, and two boxes share a small machine
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": "",
}


@dataclass(frozen=True, slots=True)
class BoxPlan:
    """What one vLLM server on a CPU is to serve, and how much of it at once.

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


def vllm_command(plan: BoxPlan, *, python: Path = ENGINE_PYTHON) -> VllmCommand:
    """The command line and environment of a CPU box. Raises ValueError where the adapters outnumber the CPU pool."""
    if len(plan.adapters) > plan.max_cpu_loras:
        raise ValueError(f"max_cpu_loras is {plan.max_cpu_loras}, too few for {len(plan.adapters)} adapters")
    options = EngineOptions(
        max_model_len=plan.max_model_len,
        max_num_seqs=plan.max_num_seqs,
        # fp32: greedy answers are then the same whatever else is in the batch. Eager: compiling takes minutes at start.
        dtype="float32",
        tool_call_parser=plan.tool_call_parser,
        extra=["--enforce-eager", *plan.extra],
    )
    serve = ServePlan(
        model=str(plan.model),
        served_name=plan.served_name,
        host=plan.host,
        port=plan.port,
        adapters={name: str(path) for name, path in plan.adapters.items()},
        max_loras=plan.max_loras if plan.adapters else 0,
        max_cpu_loras=plan.max_cpu_loras,
        max_lora_rank=plan.max_lora_rank,
        options=options,
    )
    command = by_interpreter(str(python), serve, release(VERSION))
    return replace(command, environment={**command.environment, **CPU_ENVIRONMENT})


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


class VllmBox(BoxProcess):
    """A box on this machine's CPU, and when it is ready."""

    def __init__(self, name: str, plan: BoxPlan, *, log: Path, python: Path = ENGINE_PYTHON) -> None:
        super().__init__(name, vllm_command(plan, python=python), log=log)
        self.plan = plan

    @property
    def url(self) -> str:
        """The server's base URL; the same after a restart."""
        return f"http://{self.plan.host}:{self.plan.port}"

    def wait_until_ready(self, timeout_s: float = 300.0) -> None:
        """Block until the base model has given a token; see :func:`wait_for_a_token`."""
        wait_for_a_token(self, self.url, self.plan.served_name, timeout_s)


def wait_for_a_token(box: BoxProcess, url: str, model: str, timeout_s: float) -> None:
    """Block until ``model`` at ``url`` has given a token: an open port and a 200 from `/health` come before that.

    Raises BoxError if the process ends or the time is over.
    """
    until = time.monotonic() + timeout_s
    with httpx2.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        while not (_is_healthy(client) and _gives_a_token(client, model)):
            if not box.running:
                raise box.error("ended while it started")
            if time.monotonic() > until:
                raise box.error(f"gave no token within {timeout_s:.0f} s")
            time.sleep(0.2)


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
