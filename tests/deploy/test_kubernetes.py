"""The Kubernetes manifests: what the API takes, boxes as `backend command` has them, pods that end in time."""

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
from tests.deploy.compose import DEPLOY, SERVICES, words

HERE = DEPLOY / "kubernetes"
KUSTOMIZATION = yaml.safe_load((HERE / "kustomization.yaml").read_text())
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "kubernetes-1.37.json").read_text())
NAME = "app.kubernetes.io/name"

MONITORED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["selector", "endpoints"],
    "properties": {
        "jobLabel": {"type": "string"},
        "selector": {"type": "object", "required": ["matchLabels"]},
        "endpoints": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "port": {"type": "string"},
                    "path": {"const": "/metrics"},
                    "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                    "relabelings": {"type": "array"},
                },
            },
        },
    },
}
"""Of the operator's ServiceMonitor what is used here."""


def documents(*names: str) -> list[dict[str, Any]]:
    return [one for name in names for one in yaml.safe_load_all((HERE / name).read_text())]


RESOURCES = documents(*KUSTOMIZATION["resources"])
MONITORING = documents("monitoring/service-monitor.yaml", "monitoring/prometheus-rule.yaml")


def found(kind: str, name: str) -> dict[str, Any]:
    [one] = [one for one in (*RESOURCES, *MONITORING) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return one


def pod_of(kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = found(kind, name)["spec"]["template"]["spec"]
    return spec


def problems(document: dict[str, Any]) -> list[str]:
    of_kind = SCHEMA["kinds"][f"{document['apiVersion']} {document['kind']}"]
    validator = jsonschema.Draft202012Validator({**of_kind, "$defs": SCHEMA["$defs"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_it_is_what_the_api_takes(resource: dict[str, Any]) -> None:
    assert problems(resource) == []


def test_the_schema_that_says_so_refuses_what_the_api_does_not_know() -> None:
    broken = json.loads(json.dumps(found("Deployment", "failsoft")))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProbes"] = {}
    assert problems(broken)


def test_every_file_is_a_resource_and_every_resource_a_file() -> None:
    files = {path.name for path in HERE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])
    monitoring = yaml.safe_load((HERE / "monitoring" / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in (HERE / "monitoring").glob("*.yaml")} - {"kustomization.yaml"} == set(monitoring)


def test_the_policies_are_mounted_as_the_folder_that_they_are(tmp_path: Path) -> None:
    [generated] = KUSTOMIZATION["configMapGenerator"]
    keys = {}
    for entry in generated["files"]:
        key, _, path = entry.rpartition("=")
        keys[key or Path(path).name] = HERE / path
    [volume] = [one for one in pod_of("Deployment", "failsoft")["volumes"] if one["name"] == "policies"]
    assert volume["configMap"]["name"] == generated["name"]
    items = volume["configMap"]["items"]
    assert {item["key"] for item in items} == keys.keys()
    for item in items:
        target = tmp_path / item["path"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(keys[item["key"]].read_bytes())
    assert read_folder(tmp_path) == read_folder(HERE / "policies")


@pytest.mark.parametrize("box", ["vllm-0", "vllm-1"])
def test_a_box_runs_what_backend_command_says(box: str) -> None:
    arguments = ["backend", "command", box, "--policies", str(HERE / "policies"), "--json"]
    shown = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments], capture_output=True, text=True, check=True
    )
    facts = json.loads(shown.stdout)
    [container] = pod_of("StatefulSet", "vllm")["containers"]
    assert ["vllm", "serve", *container["args"]] == facts["command"]
    assert container["image"].split(":v")[1].startswith(facts["vllm_version"])
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert given | {"VLLM_API_KEY": "${BOX_KEY}"} == facts["env"]
    # What the gateway sends and what the box wants is one key of one secret.
    [of_gateway] = [one for one in pod_of("Deployment", "failsoft")["containers"][0]["env"] if one["name"] == "BOX_KEY"]
    [of_box] = [one for one in container["env"] if one["name"] == "VLLM_API_KEY"]
    assert of_gateway["valueFrom"] == of_box["valueFrom"]


def test_boxes_are_named_for_the_stateful_sets_pods() -> None:
    stateful, service = found("StatefulSet", "vllm"), found("Service", "vllm")
    assert stateful["spec"]["serviceName"] == "vllm"
    assert service["spec"]["clusterIP"] == "None"  # or pods had no names
    boxes = read_folder(HERE / "policies").fleet.fleets["main"].boxes
    port = service["spec"]["ports"][0]["port"]
    assert {name: box.url for name, box in boxes.items()} == {
        f"vllm-{n}": f"http://vllm-{n}.vllm.{KUSTOMIZATION['namespace']}.svc:{port}"
        for n in range(stateful["spec"]["replicas"])
    }
    # Services' variables would be VLLM_PORT and the like, which vLLM takes for its own.
    assert pod_of("StatefulSet", "vllm")["enableServiceLinks"] is False


def test_a_gateway_runs_what_compose_runs() -> None:
    [container] = pod_of("Deployment", "failsoft")["containers"]
    compose = words(SERVICES["gateway"]["command"])
    at = compose.index("--redis")
    assert [word.replace("failsoft/gateway", "failsoft") for word in container["args"]] == compose[:at] + compose[
        at + 2 :
    ]
    assert {one["name"] for one in container["env"]} >= {"FAILSOFT_REDIS", "FAILSOFT_ADMIN_TOKEN", "OPENAI_API_KEY"}


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "failsoft"), ("StatefulSet", "vllm")])
def test_a_pod_has_the_time_to_end_its_answers(kind: str, name: str) -> None:
    pod = pod_of(kind, name)
    [container] = pod["containers"]
    flag = {"failsoft": "--drain", "vllm": "--shutdown-timeout"}[name]
    drain = int(container["args"][container["args"].index(flag) + 1])
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 10


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "failsoft"), ("StatefulSet", "valkey")])
def test_what_needs_no_privilege_has_none(kind: str, name: str) -> None:
    pod = pod_of(kind, name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        # All that is written is mounted.
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts >= ({"/data"} if name == "valkey" else {"/var/lib/failsoft", "/tmp"})


def test_selectors_find_the_pods_that_they_mean() -> None:
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in RESOURCES
        if one["kind"] in ("Deployment", "StatefulSet")
    }
    for one in (*RESOURCES, *MONITORING):
        spec = one.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        labels = selector.get("matchLabels", selector)
        if not labels:
            continue
        assert labels[NAME] in pods, one
        assert labels.items() <= pods[labels[NAME]]["metadata"]["labels"].items()
    for service in (one for one in RESOURCES if one["kind"] == "Service"):
        pod = pods[service["spec"]["selector"][NAME]]
        offered = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= offered
    for policy in (one for one in RESOURCES if one["kind"] == "NetworkPolicy"):
        pod = pods[policy["spec"]["podSelector"]["matchLabels"][NAME]]
        offered = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= offered


def test_the_autoscaler_and_the_budget_leave_a_gateway_at_work() -> None:
    scaler = found("HorizontalPodAutoscaler", "failsoft")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "failsoft"}
    assert "replicas" not in found("Deployment", "failsoft")["spec"]  # or each `apply` would undo the autoscaler's
    assert "cpu" in pod_of("Deployment", "failsoft")["containers"][0]["resources"]["requests"]  # of which it reckons
    assert scaler["minReplicas"] > found("PodDisruptionBudget", "failsoft")["spec"]["maxUnavailable"]


def test_prometheus_finds_gateways_and_boxes_under_the_jobs_that_the_alerts_know() -> None:
    for name, port in (("failsoft", "admin"), ("vllm", "http")):
        spec = found("ServiceMonitor", name)["spec"]
        jsonschema.Draft202012Validator(MONITORED).validate(spec)
        [endpoint] = spec["endpoints"]
        assert endpoint["port"] == port
        services = [
            one
            for one in RESOURCES
            if one["kind"] == "Service" and spec["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        ]
        [with_port] = [one for one in services if port in {found["name"] for found in one["spec"]["ports"]}]
        assert with_port["metadata"]["labels"][spec["jobLabel"]] == name


def test_the_admin_api_is_behind_no_service_of_the_endpoint() -> None:
    assert [port["name"] for port in found("Service", "failsoft")["spec"]["ports"]] == ["http"]
    [_, monitoring] = found("NetworkPolicy", "failsoft")["spec"]["ingress"]
    assert monitoring["ports"] == [{"port": "admin"}]
    assert "namespaceSelector" in monitoring["from"][0]


def test_one_secret_has_all_that_is_secret() -> None:
    guide = (DEPLOY.parent / "deploy.md").read_text()
    for one in RESOURCES:
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            for variable in container.get("env", ()):
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["name"] == "failsoft"
                    assert f"--from-literal={reference['key']}=" in guide
