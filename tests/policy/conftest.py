"""A folder, alarms and a real store for each test that asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.follow import PolicyFollower
from gateway.policy.store import PolicyStore
from tests.policy.scenery import Folder, RecordedAlarms


class Ran:
    """What a command left."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def policies(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `failsoft policies`."""
    for name in ("FAILSOFT_REDIS", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["policies", *map(str, arguments)])
        captured = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "policies")


@pytest.fixture
def alarms() -> RecordedAlarms:
    return RecordedAlarms()


@pytest.fixture
async def store(valkey: EmbeddedValkey) -> AsyncIterator[PolicyStore]:
    opened = PolicyStore(valkey.url)
    yield opened
    await opened.close()


@pytest.fixture
async def follow(tmp_path: Path, alarms: RecordedAlarms) -> AsyncIterator[Callable[..., Awaitable[PolicyFollower]]]:
    """Starts followers on one state folder, as restarts of one gateway, and closes them all."""
    started: list[PolicyFollower] = []

    async def start(*, redis_url: str | None = None, folder: Path | None = None) -> PolicyFollower:
        follower = PolicyFollower(
            redis_url=redis_url, folder=folder, state_dir=tmp_path / "state", env={"OPENAI_API_KEY": "k"}, alarms=alarms
        )
        started.append(follower)
        await follower.start()
        return follower

    yield start
    for follower in started:
        await follower.close()
