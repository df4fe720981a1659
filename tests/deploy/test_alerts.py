"""The alerts that are ready to use: on metrics that there are, for every alarm, and firing when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.accounts.caps import CAP_SPENT as HOSTED_CAP_SPENT
from gateway.drills.keeper import FAILED as DRILL_FAILED
from gateway.drills.keeper import STALE as DRILL_STALE
from gateway.policy.policy_alarms import FOLDER_INVALID, SNAPSHOT_LOST, STORE_AWAY, VERSION_REFUSED
from tests.deploy.compose import DEPLOY, ROOT
from tests.deploy.promql import mistakes

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
SCENARIOS = Path(__file__).parent / "alerts_test.yml"


def promtool(*arguments: str, cwd: Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool is installed here")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    assert mistakes(rule["expr"]) == []


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("failsoft_no_such_metric > 0", "there is no failsoft_no_such_metric"),
        ('failsoft_box_state{stat="open"}', "failsoft_box_state has no label stat"),
        ("sum by (boxes) (failsoft_box_state)", "nothing in it has a label boxes"),
        ("1 > 0", "it asks for no metric"),
    ],
)
def test_one_that_asks_for_others_would_be_found(expression: str, said: str) -> None:
    assert mistakes(expression) == [said]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_it_means(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    shown = " ".join(rule["annotations"].values())
    if "$labels." in shown and (grouped := re.search(r"\bby \(([^)]*)\)", rule["expr"])):
        labels = {*grouped[1].replace(" ", "").split(","), "instance"}
        assert set(re.findall(r"\$labels\.(\w+)", shown)) <= labels


def test_every_alarm_of_the_gateways_raises_some_alert() -> None:
    """One that is not in a rule by name is in the rule for all others."""
    source = [path.read_text() for path in (ROOT / "gateway").rglob("*.py")]
    kinds = set()
    for text in source:
        constants = dict(re.findall(r'^([A-Z_]+)(?:: Final)? = "(\w+)"', text, re.MULTILINE))
        for argument in re.findall(r"alarms\.on\(\s*([^,\s]+),", text):
            if argument.startswith('"'):
                kinds.add(argument.strip('"'))
            elif argument in constants:
                kinds.add(constants[argument])
    assert {"adapter_missing", "box_unauthorized", "litellm_worker_down", "worker_down"} <= kinds
    matchers = [
        (how, re.compile(pattern))
        for rule in RULES
        for how, pattern in re.findall(r'failsoft_alarm\{\s*kind(=~|!~|=)"([^"]*)"', rule["expr"])
    ]
    kinds |= {HOSTED_CAP_SPENT, DRILL_FAILED, DRILL_STALE, SNAPSHOT_LOST, VERSION_REFUSED, FOLDER_INVALID, STORE_AWAY}
    # An order is what ops gave; a cap that is near is an alert on the metric itself.
    for kind in kinds - {"degraded_by_order", "hosted_cap_near"}:
        assert any((pattern.fullmatch(kind) is not None) == (how != "!~") for how, pattern in matchers), kind


def test_every_alert_has_a_scenario_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, silent = set(), set()
    for scenario in yaml.safe_load(SCENARIOS.read_text())["tests"]:
        for expected in scenario["alert_rule_test"]:
            (fires if expected.get("exp_alerts") else silent).add(expected["alertname"])
    assert {rule["alert"] for rule in RULES} == fires == silent


def test_the_alerts_fire_as_the_scenarios_say(tmp_path: Path) -> None:
    document = yaml.safe_load(ALERTS.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]  # promtool compares them word by word
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    shutil.copy(SCENARIOS, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", SCENARIOS.name, cwd=tmp_path)


def test_prometheus_takes_its_configuration() -> None:
    assert "valid prometheus config" in promtool("check", "config", "prometheus.yml", cwd=ALERTS.parent)


def test_the_operators_rules_are_the_same() -> None:
    rule = yaml.safe_load((DEPLOY / "kubernetes" / "monitoring" / "prometheus-rule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
