"""Which metrics and labels a PromQL expression asks for. The syntax is promtool's to judge, where there is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from gateway.observe.metrics import GatewayMetrics, Histogram, Registry
from tests.deploy.compose import ROOT

_SELECTOR = re.compile(r"(?<![\w:])((?:failsoft_|vllm:|up\b)[A-Za-z0-9_:]*)(?:\s*\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPED = re.compile(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)")

OF_PROMETHEUS = frozenset({"instance", "job"})
"""Labels that every series gets when it is read."""


@cache
def known() -> dict[str, frozenset[str]]:
    """Every series' name with its labels: the gateway's own, and those that a page of vLLM 0.32's has."""
    registry = Registry()
    GatewayMetrics(registry)
    found = {"up": frozenset({"box"})}
    for metric in registry.all():
        labels = frozenset(metric.labels)  # type: ignore[attr-defined]
        name = metric.name  # type: ignore[attr-defined]
        found[name] = labels
        if isinstance(metric, Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    page = (ROOT / "tests" / "fleet" / "data" / "vllm_0_32_metrics.txt").read_text()
    for name, labels_text in re.findall(r"^(vllm:\w+)\{([^}]*)\}", page, re.MULTILINE):
        # `box` is what prometheus.yml and the ServiceMonitor call the server.
        found[name] = frozenset(re.findall(r"(\w+)=", labels_text)) | {"box"}
    return found


def selectors(expression: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each metric that it names, with the labels that are matched there."""
    for name, matchers in _SELECTOR.findall(expression):
        yield name, frozenset(_MATCHER.findall(matchers))


def mistakes(expression: str) -> list[str]:
    """What it asks for that nobody exports; nothing at all is a mistake too."""
    found, labels = [], set(OF_PROMETHEUS)
    for name, matched in selectors(expression):
        if name not in known():
            found.append(f"there is no {name}")
            continue
        labels |= known()[name]
        found += [f"{name} has no label {label}" for label in sorted(matched - known()[name] - OF_PROMETHEUS)]
    grouped = {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",") if label.strip()}
    found += [f"nothing in it has a label {label}" for label in sorted(grouped - labels)]
    return found or ([] if any(selectors(expression)) else ["it asks for no metric"])
