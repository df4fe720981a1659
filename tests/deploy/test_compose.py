"""compose.yaml is what the Compose Specification allows, and everything that it refers to exists and fits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.policy.validate import read_folder
from tests.deploy.compose import (
    COMPOSE,
    DEPLOY,
    PROFILES,
    ROOT,
    SERVICES,
    health_check,
    hosts,
    of_profile,
    read,
    seconds,
    words,
)

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "failsoft"}
VLLM = {name: service for name, service in SERVICES.items() if service["image"].startswith("vllm/")}
POLICIES = {"simulated": "cpu", "cpu": "cpu", "gpu": "gpu"}


def problems(document: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]


def backend_command(box: str, policies: Path) -> dict[str, Any]:
    arguments = ["backend", "command", box, "--policies", str(policies), "--json"]
    shown = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments], capture_output=True, text=True, check=True
    )
    facts: dict[str, Any] = json.loads(shown.stdout)
    return facts


def value_of(flag: str, command: list[str]) -> str:
    return command[command.index(flag) + 1]


def test_it_is_what_the_compose_specification_allows() -> None:
    assert problems(COMPOSE) == []


@pytest.mark.parametrize("where", ["services", "volumes"])
def test_the_schema_that_says_so_refuses_what_it_does_not_know(where: str) -> None:
    broken = json.loads(json.dumps(COMPOSE))
    next(iter(broken[where].values()))["readonly"] = True
    assert problems(broken)


def test_secrets_have_no_default() -> None:
    for missing in ("ADMIN_TOKEN", "GRAFANA_PASSWORD"):
        with pytest.raises(KeyError, match=missing):
            read({"ADMIN_TOKEN": "x", "GRAFANA_PASSWORD": "x"} | {missing: ""})


def test_the_example_of_settings_names_the_variables_that_there_are() -> None:
    text = (ROOT / "compose.yaml").read_text()
    example = (DEPLOY / "env.example").read_text()
    named = {line.lstrip("#").split("=")[0] for line in example.splitlines() if "=" in line.split(" ")[0]}
    assert named - {"COMPOSE_PROFILES"} == {part.split("}")[0].split(":")[0] for part in text.split("${")[1:]}


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_a_store_two_boxes_a_gateway_and_those_who_watch(profile: str) -> None:
    assert {"redis", "gateway", "vllm-a", "vllm-b", "prometheus", "grafana"} <= hosts(profile).keys()


def test_every_service_belongs_to_a_profile_and_can_tell_its_health() -> None:
    for name, service in SERVICES.items():
        assert set(service["profiles"]) <= set(PROFILES), name
        assert service["profiles"], name
        assert health_check(service), name


@pytest.mark.parametrize("profile", PROFILES)
def test_whatever_a_service_depends_on_is_in_its_profile(profile: str) -> None:
    services = of_profile(profile)
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys(), name


def test_every_file_that_is_mounted_exists_and_every_volume_is_declared() -> None:
    used = set()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            if isinstance(volume, dict):
                # The user's own folders: Compose is to refuse to start rather than to make empty ones.
                assert volume["bind"]["create_host_path"] is False
                assert volume["read_only"] is True
                continue
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), (name, source)
                assert rest.endswith(":ro"), (name, volume)
            else:
                used.add(source)
    assert used == COMPOSE["volumes"].keys()


def test_our_own_containers_have_no_privilege_and_a_root_that_cannot_be_written() -> None:
    assert {"gateway", "gateway-without-gpu", "provider", "simulated-a", "simulated-b"} == OURS.keys()
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["tmpfs"] == ["/tmp"], name
        # Whatever else is built from the Dockerfile would be pulled from a registry where it is started first.
        assert service["build"]["dockerfile"] == "gateway/Dockerfile", name
    for name, service in SERVICES.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name


def test_nothing_but_the_endpoint_can_be_opened_to_the_network() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
    opened = read({"ADMIN_TOKEN": "x", "GRAFANA_PASSWORD": "x", "LISTEN": "0.0.0.0"})["services"]
    ports = [port for service in opened.values() for port in service.get("ports", ())]
    assert {port for port in ports if not port.startswith("127.0.0.1:")} == {"0.0.0.0:8080:8080"}


def test_images_are_of_a_named_release() -> None:
    for name, service in SERVICES.items():
        _, colon, tag = service["image"].partition(":")
        assert service["image"] == "failsoft" or (colon and tag != "latest"), name


def test_each_box_has_a_gpu_of_its_own() -> None:
    given = [SERVICES[name]["deploy"]["resources"]["reservations"]["devices"][0] for name in ("vllm-a", "vllm-b")]
    assert [device["device_ids"] for device in given] == [["0"], ["1"]]
    assert all(device["capabilities"] == ["gpu"] for device in given)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("box", ["vllm-a", "vllm-b"])
def test_a_box_runs_what_backend_command_says(profile: str, box: str) -> None:
    facts = backend_command(box, DEPLOY / profile)
    service = SERVICES[hosts(profile)[box]]
    # The image's entry point is `vllm serve`.
    assert ["vllm", "serve", *words(service["command"])] == facts["command"]
    assert service["environment"] == facts["env"]
    assert facts["objections"] == []
    assert service["image"].split(":v")[1].startswith(facts["vllm_version"])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_policies_name_the_boxes_of_their_profile(profile: str) -> None:
    policies = read_folder(DEPLOY / POLICIES[profile])
    [mount] = [volume for volume in SERVICES[hosts(profile)["gateway"]]["volumes"] if volume.endswith(":/policies:ro")]
    assert mount == f"./docs/deploy/{POLICIES[profile]}:/policies:ro"
    boxes = policies.fleet.fleets["main"].boxes
    assert {box.url for box in boxes.values()} == {f"http://{name}:8000" for name in ("vllm-a", "vllm-b")}


@pytest.mark.parametrize("box", ["simulated-a", "simulated-b"])
def test_a_simulated_box_stands_in_for_one_on_the_cpu(box: str) -> None:
    command = words(SERVICES[box]["command"])
    model = read_folder(DEPLOY / "cpu").fleet.fleets["main"].boxes["vllm-a"]
    assert value_of("--max-loras", command) == str(model.max_loras)
    adapters = [command[at + 1] for at, word in enumerate(command) if word == "--adapter"]
    assert adapters == [name for one in read_folder(DEPLOY / "cpu").customers for name in one.adapters]


@pytest.mark.parametrize("profile", ["simulated", "cpu"])
def test_without_gpus_nothing_leaves_the_house(profile: str) -> None:
    providers = read_folder(DEPLOY / "cpu").fleet.providers
    assert providers is not None
    assert {provider.api_base for provider in providers.values()} == {"http://provider:8000/v1"}
    assert "provider" in hosts(profile)
    key = SERVICES[hosts(profile)["gateway"]]["environment"]["OPENAI_API_KEY"]
    assert value_of("--api-key", words(SERVICES["provider"]["command"])) == key


@pytest.mark.parametrize("name", ["gateway", "gateway-without-gpu"])
def test_a_gateway_has_the_time_to_end_its_answers(name: str) -> None:
    drain = float(value_of("--drain", words(SERVICES[name]["command"])))
    assert seconds(SERVICES[name]["stop_grace_period"]) >= drain + 10


@pytest.mark.parametrize("name", sorted(VLLM))
def test_a_box_has_the_time_to_end_its_answers(name: str) -> None:
    drain = float(value_of("--shutdown-timeout", words(VLLM[name]["command"])))
    assert seconds(VLLM[name]["stop_grace_period"]) >= drain + 10


def test_prometheus_asks_the_services_that_there_are() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    assert targets == {"gateway:9090", "vllm-a:8000", "vllm-b:8000"}
    for name in ("gateway", "gateway-without-gpu"):
        assert value_of("--admin-port", words(SERVICES[name]["command"])) == "9090"
