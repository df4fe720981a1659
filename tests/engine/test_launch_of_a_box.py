"""`failsoft backend launch` with the real engine: one start on the CPU, from fleet.yaml to the last process's end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from backend.box_process import descendants
from backend.launch import CPU_ENVIRONMENT, ENGINE_PYTHON, free_port
from backend.tiny_model.artefacts import TinyModel
from backend.vllm_flags import release
from tests.support.eventually import eventually
from tests.support.processes import Processes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

ASK_FOR_FLAGS = """
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
actions = make_arg_parser(FlexibleArgumentParser())._actions
print("\\n".join(name for action in actions for name in action.option_strings))
"""


def write_policies(folder: Path, model: TinyModel, port: int) -> None:
    environment = {name: value for name, value in CPU_ENVIRONMENT.items() if value}
    fleet = {
        "base_model": "base",
        "model_path": str(model.base),
        "adapter_root": str(next(iter(model.adapters.values())).parent),
        "engine": {
            "max_model_len": 1024,
            "max_num_seqs": 8,
            "dtype": "float32",
            "tool_call_parser": "llama3_json",
            "drain": "20s",
            "env": environment,
            "extra": ["--enforce-eager"],
        },
        "boxes": {"cpu": {"url": f"http://127.0.0.1:{port}", "max_loras": 2, "api_key": "${BOX_KEY}"}},
    }
    (folder / "customers").mkdir()
    (folder / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))
    acme = {"customer": "acme", "api_keys": [], "adapters": list(model.adapters)}
    (folder / "customers" / "acme.yaml").write_text(json.dumps(acme))


async def test_a_box_of_fleet_yaml_serves_its_adapters_drains_and_leaves_nothing(
    tiny_model: TinyModel, processes: Processes, tmp_path: Path
) -> None:
    port = free_port()
    write_policies(tmp_path, tiny_model, port)
    command = [sys.executable, "-m", "gateway.cli", "backend", "launch", "cpu", "--policies", str(tmp_path)]
    command += ["--python", str(ENGINE_PYTHON), "--log", str(tmp_path / "cpu.log")]
    launched = processes.command(command, name="launch", env={"BOX_KEY": "sesame"})
    await launched.ready(lambda: "ready after" in launched.output, within_s=300)
    family = descendants(launched.pid)
    assert len(family) >= 3, "an API process, an engine and a worker"

    client = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer sesame"}, timeout=60, trust_env=False
    )
    async with client:
        listed = {model["id"]: model["root"] for model in (await client.get("/v1/models")).json()["data"]}
        assert listed == {"base": str(tiny_model.base)} | {name: str(at) for name, at in tiny_model.adapters.items()}
        body = {"model": next(iter(tiny_model.adapters)), "prompt": "Where", "max_tokens": 400, "ignore_eos": True}
        async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            lines = answer.aiter_lines()
            first = await anext(lines)
            launched.terminate()
            rest = [line async for line in lines]
    assert first.startswith("data: ")
    assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]", "what ran when SIGTERM came has ended whole"
    assert not any('"finish_reason":"abort"' in line for line in rest)

    assert await launched.ended(within_s=60) == 0
    assert "SIGTERM: running requests have 20 s" in launched.output
    assert "6 of 6 adapters" in launched.output
    assert "sesame" not in launched.output + (tmp_path / "cpu.log").read_text(errors="replace")
    await eventually(lambda: not [pid for pid in family if _lives(pid)], within_s=10)


def test_the_table_of_flags_is_what_the_installed_engine_takes(tiny_model: TinyModel) -> None:
    asked = subprocess.run(
        [ENGINE_PYTHON, "-P", "-c", ASK_FOR_FLAGS], capture_output=True, text=True, check=True, timeout=200
    )
    taken = {name for name in asked.stdout.split() if name.startswith("-")} - {"-h", "--help"}
    assert {name for flag in release("0.32").flags for name in flag.names} == taken


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
