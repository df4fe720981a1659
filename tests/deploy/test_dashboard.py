"""The Grafana dashboard that is provisioned: it loads, and asks for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.compose import DEPLOY, SERVICES
from tests.deploy.promql import mistakes, selectors

GRAFANA = DEPLOY / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "failsoft.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def mounted(path: str) -> Path:
    """Where on this machine a path in Grafana's container lies."""
    for volume in SERVICES["grafana"]["volumes"]:
        source, inside = volume.split(":")[:2]
        if path == inside or path.startswith(f"{inside}/"):
            return DEPLOY.parent.parent / source / path[len(inside) + 1 :]
    raise AssertionError(f"{path} is not mounted")


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_a_panel_asks_for_metrics_and_labels_that_there_are(title: str, expression: str) -> None:
    assert mistakes(expression) == [], title


def test_it_shows_traffic_boxes_fallback_and_policies() -> None:
    shown = {name for _, expression in QUERIES for name, _ in selectors(expression)}
    assert {
        "failsoft_requests_total",
        "failsoft_time_to_first_content_seconds_bucket",
        "failsoft_box_lora_slots_held",
        "failsoft_box_predicted_lora_swaps_total",
        "failsoft_box_kv_cache_usage",
        "failsoft_box_state",
        "failsoft_provider_state",
        "failsoft_hosted_usd_total",
        "failsoft_hosted_cap_used",
        "failsoft_policy_version",
        "failsoft_alarm",
        "vllm:time_to_first_token_seconds_bucket",
    } <= shown


def test_panels_have_names_of_their_own_and_do_not_lie_over_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_grafana_is_told_where_dashboard_and_data_are() -> None:
    provisioning = mounted("/etc/grafana/provisioning")
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    name, _, port = source["url"].removeprefix("http://").partition(":")
    assert name in SERVICES
    assert port == SERVICES[name]["ports"][0].split(":")[-1]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "failsoft.yaml").read_text())["providers"]
    assert (mounted(provider["options"]["path"]) / "failsoft.json").is_file()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounted(home).is_file()
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(PANELS)))
    assert used == variables


def test_every_expression_is_promql(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool is installed here")
    rules = [
        {
            "record": f"panel:{number}",
            "expr": re.sub(r"\$(gateway|box)", ".*", expression.replace("$__rate_interval", "5m")),
        }
        for number, (_, expression) in enumerate(QUERIES)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [program, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
