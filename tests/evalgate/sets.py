"""Eval sets of made-up customers, what an endpoint has to say to get them right or wrong, and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, Process, Processes, Simulator

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"$ref": "#/$defs/unit"},
            },
            "$defs": {"unit": {"enum": ["Celsius", "Fahrenheit"]}},
        },
    },
}
STOCK = {"type": "function", "function": {"name": "get_stock", "parameters": {"type": "object"}}}
Line = dict[str, Any]


def case(number: int, *, none: bool = False, **more: Any) -> Line:
    """One that expects the weather of a city, or that nothing is called."""
    call = {"name": "get_weather", "arguments": {"city": f"City {number}", "days": number, "unit": "Celsius"}}
    return {
        "id": f"p{number}",
        "messages": [{"role": "user", "content": f"prompt {number}"}],
        "tools": [WEATHER, STOCK],
        "expected": None if none else call,
        **more,
    }


def cases(count: int, *, none: int = 0) -> list[Line]:
    """``count`` of them, of which the last ``none`` must get no call."""
    return [case(number, none=number >= count - none) for number in range(count)]


def right(line: Line) -> Line:
    """What an endpoint has to say to it."""
    reply: Line = {"prompt": line["messages"][-1]["content"]}
    expected = line["expected"]
    return {**reply, **({"content": "I cannot help with that."} if expected is None else {"call": expected})}


def wrong(line: Line, **said: Any) -> Line:
    """A call of the wrong tool, or what is given."""
    said = said or {"call": {"name": "get_stock", "arguments": {}}}
    return {"prompt": line["messages"][-1]["content"], **said}


def write(path: Path, lines: Iterable[Line]) -> Path:
    """As JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Desk:
    """A folder with sets, endpoints that say what they are told to, and `failsoft eval`."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self.folder = folder
        self.sets = folder / "sets"

    def customer(self, name: str, lines: Iterable[Line]) -> Path:
        """A customer's set."""
        return write(self.sets / f"{name}.jsonl", lines)

    def box(self, name: str, replies: Iterable[Line], **knobs: Any) -> Simulator:
        """A simulated box that says these."""
        path = write(self.folder / f"{name}.replies", replies)
        box = self._processes.box(name=name, any_adapter=True, replies=path, **knobs)
        box.wait_ready()
        return box

    def provider(self, replies: Iterable[Line], **knobs: Any) -> Simulator:
        """A stand-in provider that says these."""
        path = write(self.folder / "provider.replies", replies)
        provider = self._processes.provider(replies=path, **knobs)
        provider.wait_ready()
        return provider

    def arguments(self, baseline: str, candidate: str, *options: str, out: str = "run") -> list[str]:
        """Of `failsoft eval run` over all sets."""
        ends = ["--baseline", baseline, "--candidate", candidate]
        return ["run", str(self.sets), *ends, "--out", str(self.folder / out), *options]

    def eval(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = [sys.executable, "-m", "gateway.cli", "eval", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50, check=False, env=_env(env))

    def begin(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start it."""
        command = [sys.executable, "-m", "gateway.cli", "eval", *arguments]
        return self._processes.command(command, name="eval", env=_env(env))

    def result(self, out: str = "run") -> Any:
        """``result.json``."""
        return json.loads((self.folder / out / "result.json").read_text())

    def answers(self, out: str = "run") -> list[Any]:
        """Every line of ``answers.jsonl`` that is whole."""
        text = (self.folder / out / "answers.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _env(more: Mapping[str, str] | None) -> dict[str, str]:
    import os

    return {**os.environ, "COLUMNS": "200", **(more or {})}
