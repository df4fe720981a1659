"""What compose.yaml and the Kubernetes manifests have vLLM run, on the real engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest
import yaml

from backend.launch import ENGINE_PYTHON, free_port
from backend.tiny_model.artefacts import TinyModel
from tests.deploy.compose import DEPLOY, SERVICES, health_check, seconds, words
from tests.engine.test_launch_of_a_box import ask_the_parser
from tests.support.processes import Processes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def of_kubernetes() -> list[str]:
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "vllm.yaml").read_text()):
        if document["kind"] == "StatefulSet":
            arguments: list[str] = document["spec"]["template"]["spec"]["containers"][0]["args"]
            return arguments
    raise AssertionError("no StatefulSet")


async def test_the_cpu_profiles_box_comes_up_serves_its_adapters_and_ends_in_time(
    tiny_model: TinyModel, processes: Processes
) -> None:
    service = SERVICES["vllm-cpu-a"]
    port = str(free_port())
    adapters = str(next(iter(tiny_model.adapters.values())).parent)
    here = {"/models/base": str(tiny_model.base), "0.0.0.0": "127.0.0.1", "8000": port}
    model, *flags = (here.get(word, word.replace("=/adapters/", f"={adapters}/")) for word in words(service["command"]))
    # The image's entry point is `vllm serve`, which this build of the engine has under another name.
    command = [ENGINE_PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *flags]
    box = processes.command(command, name="vllm-cpu-a", env={**service["environment"], "PYTHONPATH": ""})
    check = [word.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for word in health_check(service)]
    check[0] = str(ENGINE_PYTHON)

    def healthy() -> bool:
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    assert not healthy()
    await box.ready(healthy, within_s=240)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
        assert listed == {"base", "customer_acme_v3", "customer_globex_v1"}
        for name in sorted(listed):
            body = {"model": name, "messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 4}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == name
    box.terminate()
    await box.ended(within_s=seconds(service["stop_grace_period"]))
    assert not healthy()


def test_vllm_takes_the_flags_of_the_boxes_with_gpus(tmp_path: Path) -> None:
    commands = [words(SERVICES["vllm-a"]["command"]), of_kubernetes()]
    said = ask_the_parser(commands, tmp_path)
    assert said["models"] == ["/models/base"] * 2
    adapters = {name: f"/adapters/{name}" for name in ("customer_acme_v3", "customer_globex_v1")}
    assert said["adapters"] == [adapters] * 2
