"""Policy folders, alarms that remember, and waiting for conditions, for the tests of the policy room."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

FLEET = """\
fleets:
  main:
    base_model: base
    boxes:
      box-a: {url: "http://10.0.0.11:8000"}
      box-b: {url: "http://10.0.0.12:8000", api_key: "${BOX_KEY}"}
providers:
  hosted:
    model: openai/gpt-4o-mini
    api_key: ${OPENAI_API_KEY}
"""


def digest(key: str) -> str:
    """As policies write an API key."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def customer(name: str, extra: str = "") -> str:
    """A customer's file; its API key is ``key-NAME`` and its adapter ``NAME_v1``."""
    return f'customer: {name}\napi_keys: ["{digest(f"key-{name}")}"]\nadapters: [{name}_v1]\n{dedent(extra)}'


class Folder:
    """A folder of policies that tests edit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "customers").mkdir(parents=True)
        self.write("fleet.yaml", FLEET)
        self.customer("acme")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, "utf-8")

    def customer(self, name: str, extra: str = "") -> None:
        self.write(f"customers/{name}.yaml", customer(name, extra))


class RecordedAlarms:
    """Takes alarms as the gateway's own do, and keeps what was ever said."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], str] = {}
        self.ever: list[tuple[str, str]] = []

    def on(self, kind: str, subject: str, message: str) -> None:
        self.now[kind, subject] = message
        self.ever.append((kind, message))

    def off(self, kind: str, subject: str) -> None:
        self.now.pop((kind, subject), None)

    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.now}


async def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait until ``condition`` holds; fails when it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.01)
