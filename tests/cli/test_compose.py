"""What compose.yaml and the Dockerfile refer to exists."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.serve import serve
from gateway.policy.validate import read_folder

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "gateway" / "Dockerfile").read_text()

GONE_SINCE_0_6_3 = {
    "--swap-space",
    "--num-scheduler-steps",
    "--use-v2-block-manager",
    "--disable-log-requests",
    "--guided-decoding-backend",
    "--lora-extra-vocab-size",
    "--long-lora-scaling-factors",
}


def flags_of_serve() -> set[str]:
    import typer

    app = typer.Typer(add_completion=False)
    app.command()(serve)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    return set(re.findall(r"--[a-z-]+", shown.stdout))


def test_every_file_that_compose_refers_to_exists() -> None:
    for service in SERVICES.values():
        if build := service.get("build"):
            assert (ROOT / build["context"] / build["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"]


def test_every_service_that_one_depends_on_exists_and_can_tell_its_health() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[name] or how["condition"] != "service_healthy"


@pytest.mark.parametrize("where", ["compose.yaml", "Dockerfile"])
def test_the_gateway_is_started_with_flags_that_it_has(where: str) -> None:
    if where == "compose.yaml":
        command = [str(word) for word in SERVICES["gateway"]["command"]]
    else:
        found = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
        assert found is not None
        command = yaml.safe_load(found[1])
    assert command[0] == "serve"
    used = {word for word in command if word.startswith("--")}
    assert used <= flags_of_serve()


def test_the_boxes_share_one_command_line_without_flags_that_vllm_dropped() -> None:
    a, b = (SERVICES[name]["command"] for name in ("vllm-a", "vllm-b"))
    assert a == b
    assert not GONE_SINCE_0_6_3 & set(a)
    # The image runs `vllm serve`, which takes the model first and means to drop `--model`.
    assert a[0].startswith("/models/")
    assert "--model" not in a
    value = dict(itertools.pairwise(a))
    assert int(value["--max-cpu-loras"]) >= int(value["--max-loras"])
    assert int(value["--max-lora-rank"]) in {1, 8, 16, 32, 64, 128, 256, 320, 512}


def test_the_policies_hold_and_name_the_boxes_and_adapters_that_compose_starts(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "policies" / "customers", tmp_path / "customers")
    shutil.copy(ROOT / "policies" / "defaults.yaml", tmp_path)
    fleet = COMPOSE["configs"]["fleet"]["content"].replace("$$", "$")  # Compose's way to write a dollar
    (tmp_path / "fleet.yaml").write_text(fleet)
    policies = read_folder(tmp_path)
    boxes = policies.fleet.fleets["main"].boxes
    assert {box.url for box in boxes.values()} == {
        f"http://{name}:8000" for name in SERVICES if name.startswith("vllm")
    }
    command = SERVICES["vllm-a"]["command"]
    loaded = {word.split("=")[0] for word in command if "=/adapters/" in word}
    assert {adapter for customer in policies.customers for adapter in customer.adapters} == loaded


def test_the_boxes_have_a_gpu_each() -> None:
    devices = [
        SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name in ("vllm-a", "vllm-b")
    ]
    assert devices[0] != devices[1]


def test_the_image_copies_only_what_exists_and_what_dockerignore_lets_through() -> None:
    allowed = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in allowed, source


def test_the_image_runs_as_somebody_else_than_root() -> None:
    assert re.search(r"^USER (?!root|0)\w+", DOCKERFILE, re.MULTILINE)
