"""`failsoft audit` on a store, where no gateway is up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.policy.embedded import EmbeddedValkey
from tests.policy.scenery import Folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def failsoft(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A store in a loop of its own, as the command runs one itself."""
    with asyncio.Runner() as runner:
        server = EmbeddedValkey(tmp_path / "redis")
        runner.run(server.start())
        yield server.url
        runner.run(server.stop())


def test_applied_versions_are_shown_with_who_and_why(failsoft: Run, url: str, folder: Folder) -> None:
    assert failsoft("audit", "--redis", url)[:2] == (0, "nothing was changed\n")
    failsoft("policies", "apply", folder.path, "--redis", url, "--note", "first [red]")
    failsoft("policies", "apply", folder.path, "--redis", url, "--note", "second")
    code, out, _ = failsoft("audit", "--redis", url, "--since", "1h")
    assert code == 0
    assert [line.partition("policies: ")[2][:9] for line in out.splitlines()[1:]] == ["version 1", "version 2"]
    assert "first [red]" in out
    found = json.loads(failsoft("audit", "--redis", url, "--json", "--limit", "1")[1])
    assert (found["complete"], [entry["what"] for entry in found["entries"]]) == (True, ["policies: version 2"])
    assert json.loads(failsoft("audit", "--redis", url, "--json", "--since", "2999-01-01T08:00Z")[1])["entries"] == []


def test_a_store_that_is_away_is_three(failsoft: Run, tmp_path: Path) -> None:
    code, _, err = failsoft("audit", "--redis", f"unix://{tmp_path}/nothing")
    assert (code, "cannot be reached" in err) == (3, True)


@pytest.mark.parametrize(
    "arguments", [("--since", "soon"), ("--redis", "http://x"), ("--limit", "5000"), ("--limit", "0")]
)
def test_what_cannot_be_asked_is_misuse(failsoft: Run, arguments: tuple[str, ...]) -> None:
    assert failsoft("audit", *arguments)[0] == 2
