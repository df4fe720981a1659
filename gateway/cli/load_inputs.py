"""What `failsoft load` is told: by files, options, the environment, or a demo that runs here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from backend.loadtest.budget import Budget, Budgets, from_policies
from backend.loadtest.keys import Credential, read_keys
from backend.loadtest.report import FORMAT
from backend.traffic.mix import TrafficMix
from backend.traffic.read import read_mix
from gateway.demo.control import in_use
from gateway.demo.layout import Layout, default_root
from gateway.policy.durations import parse_duration
from gateway.policy.validate import read_folder

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Who asks, and what was promised to them."""

    credentials: Mapping[str, Credential]
    budgets: Budgets


def find(
    url: str | None, keys: Path | None, environment: Mapping[str, str]
) -> tuple[str, dict[str, Credential], Path | None]:
    """The gateway's URL, the customers' keys and, of a demo, its policies. Raises ValueError or TrafficError."""
    if keys is not None:
        return (url or DEFAULT_URL).rstrip("/"), read_keys(keys, environment), None
    demo = Layout(default_root(environment).absolute())
    if not in_use(demo.control) or not demo.keys.exists():
        raise ValueError("give --keys FILE, or start the demo (make run), whose customers' keys are known")
    theirs = demo.address.read_text().strip()
    return (url or theirs).rstrip("/"), read_keys(demo.keys, environment), demo.policies


def changed(
    traffic: Path | None, *, rate: float | None, duration: str | None, warm_up: str | None, seed: int | None
) -> TrafficMix:
    """The mix of the file, or the usual one, with what the options say instead. Raises TrafficError."""
    mix = TrafficMix() if traffic is None else read_mix(traffic)
    instead: dict[str, Any] = {
        "requests_per_minute": rate,
        "duration": duration,
        "warm_up": warm_up,
        "seed": seed,
    }
    said = {name: value for name, value in instead.items() if value is not None}
    if not said:
        return mix
    try:
        written = mix.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return TrafficMix.model_validate({**written, **said})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = {"requests_per_minute": "--rate"}.get(
            str(first["loc"][0]), f"--{str(first['loc'][0]).replace('_', '-')}"
        )
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=option) from None


def budgets_for(policies: Path | None, usual: Budget) -> Budgets:
    """Of the policies' customers what their policies say. Raises PolicyError."""
    return Budgets(usual) if policies is None else from_policies(read_folder(policies), usual)


def seconds(text: str, option: str) -> float:
    """A duration given as an option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def read_report(path: Path) -> dict[str, Any]:
    """A report that ``--out`` wrote. Raises ValueError with a sentence."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(document, dict) or not {"format", "overall", "customers", "run"} <= document.keys():
        raise ValueError(f"{path} is not a report of failsoft load")
    if document["format"] != FORMAT:
        raise ValueError(f"{path} has format {document['format']}, and this release reads {FORMAT}")
    return document
