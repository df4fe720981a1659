"""`failsoft backend launch` with the real engine: one start on the CPU, from fleet.yaml to the last process's end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backend.box_process import descendants
from backend.flag_check import objections
from backend.launch import CPU_ENVIRONMENT, ENGINE_PYTHON, free_port
from backend.serve_plan import ServePlan, by_program
from backend.tiny_model.artefacts import TinyModel
from backend.vllm_flags import release
from gateway.policy.engine_options import EngineOptions
from tests.support.alive import is_alive
from tests.support.eventually import eventually
from tests.support.processes import Processes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

ASK_THE_PARSER = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
parsed = [parser.parse_args(arguments) for arguments in json.loads(sys.argv[1])]
for one in parsed:
    validate_parsed_serve_args(one)
names = [name for action in parser._actions for name in action.option_strings]
adapters = [{module.name: module.path for module in one.lora_modules} for one in parsed]
print(json.dumps({"names": names, "models": [one.model_tag for one in parsed], "adapters": adapters}))
"""


def ask_the_parser(commands: Sequence[Sequence[str]], folder: Path) -> dict[str, Any]:
    """What the engine's own parser makes of these arguments."""
    asked = subprocess.run(
        [ENGINE_PYTHON, "-P", "-c", ASK_THE_PARSER, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    return dict(json.loads(asked.stdout.splitlines()[-1]))


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
    await eventually(lambda: not [pid for pid in family if is_alive(pid)], within_s=10)


def test_the_engine_s_own_parser_takes_our_commands_and_has_the_flags_of_the_table(tmp_path: Path) -> None:
    of = release("0.32")
    adapters = {"acme_v3": "/adapters/acme_v3", "odd=name,indeed": "/adapters/odd=name,indeed"}
    options = {
        "gpu_memory_utilization": 0.9,
        "max_model_len": 8192,
        "max_num_seqs": 64,
        "max_queued_tokens": 100_000,
        "tensor_parallel_size": 2,
        "dtype": "bfloat16",
        "tool_call_parser": "llama3_json",
        "extra": ["--max-num-batched-tokens", "8192", "-O1", "--no-enable-prefix-caching", "--seed=-1"],
    }
    plan = ServePlan(
        model="/models/llama",
        served_name="base",
        host="0.0.0.0",
        port=8000,
        adapters=adapters,
        max_loras=8,
        max_cpu_loras=64,
        options=EngineOptions.model_validate(options),
        max_queued_requests=256,
        drain_s=30.0,
    )
    assert [one for one in objections(plan, of) if one.severity == "error"] == []
    commands = [
        by_program("vllm", plan, of).arguments[2:],
        by_program("vllm", replace(plan, drain_s=0), of).arguments[2:],
    ]
    answer = ask_the_parser(commands, tmp_path)
    assert answer["models"] == ["/models/llama"] * 2
    assert answer["adapters"] == [adapters] * 2
    assert {name for flag in of.flags for name in flag.names} == set(answer["names"]) - {"-h", "--help"}
