"""`failsoft policies` from the outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.policy.embedded import EmbeddedValkey
from tests.policy.scenery import Folder


@pytest.fixture
def url(tmp_path: Path) -> Any:
    """A store in a thread's own loop, as the command runs a loop itself."""
    import asyncio

    with asyncio.Runner() as runner:
        server = EmbeddedValkey(tmp_path / "redis")
        runner.run(server.start())
        yield server.url
        runner.run(server.stop())


def test_a_folder_that_holds_together_is_confirmed(policies: Any, folder: Folder) -> None:
    ran = policies("validate", folder.path)
    assert ran.status == 0
    assert "1 customer, 1 adapter, 2 boxes" in ran.err
    assert "not in force in this release: on_broken_stream" in ran.err


def test_every_mistake_is_printed_with_its_place(policies: Any, folder: Folder) -> None:
    folder.customer("acme", "x: 1\ny: 2\n")
    ran = policies("validate", folder.path)
    assert ran.status == 1
    assert f"{folder.path}/customers/acme.yaml:4:1: error: x: unknown key" in ran.err
    assert f"{folder.path}/customers/acme.yaml:5:1: error: y: unknown key" in ran.err


def test_mistakes_are_facts_for_machines_too(policies: Any, folder: Folder) -> None:
    folder.customer("acme", "ttft_buget: 1s\n")
    ran = policies("validate", folder.path, "--json")
    assert ran.status == 1
    assert not ran.json["ok"]
    (found,) = ran.json["diagnostics"]
    assert (found["line"], found["column"], found["key"]) == (4, 1, "ttft_buget")
    assert found["hint"] == "did you mean ttft_budget?"


def test_what_was_applied_is_shown_as_it_was_written(policies: Any, folder: Folder, url: str) -> None:
    folder.customer("acme", "# a comment that stays\n")
    applied = policies("apply", folder.path, "--redis", url, "--note", "first", "--json")
    assert (applied.status, applied.json["version"]) == (0, 1)
    shown = policies("show", "--redis", url)
    assert shown.status == 0
    assert "# a comment that stays" in shown.out
    assert "first" in shown.err
    as_json = policies("show", "1", "--redis", url, "--json").json
    assert as_json["policies"]["customers"][0]["customer"] == "acme"
    assert as_json["policies"]["fleet"]["providers"]["hosted"]["api_key"] == "${OPENAI_API_KEY}"


def test_case_38_a_bad_push_is_refused_whole(policies: Any, folder: Folder, url: str) -> None:
    folder.customer("acme", "x: 1\n")
    ran = policies("apply", folder.path, "--redis", url)
    assert ran.status == 1
    assert "nothing was written" in ran.err
    assert "the store is empty" in policies("show", "--redis", url).err


def test_a_change_based_on_an_old_version_is_refused(policies: Any, folder: Folder, url: str) -> None:
    for _ in range(2):
        policies("apply", folder.path, "--redis", url)
    ran = policies("apply", folder.path, "--redis", url, "--base", "1")
    assert ran.status == 1
    assert "based on version 1, and the store is at version 2" in ran.err


def test_a_version_that_there_is_not_is_told(policies: Any, folder: Folder, url: str) -> None:
    policies("apply", folder.path, "--redis", url)
    ran = policies("show", "7", "--redis", url)
    assert ran.status == 1
    assert "there is no version 7; the current one is 1" in ran.err


def test_a_store_that_is_away_has_its_own_exit_status(policies: Any, folder: Folder) -> None:
    ran = policies("apply", folder.path, "--redis", "redis://u:very-secret@127.0.0.1:1")
    assert ran.status == 3
    assert "cannot be reached" in ran.err
    assert "very-secret" not in ran.err


@pytest.mark.parametrize("arguments", [(), ("--redis", "nonsense")])
def test_without_a_store_to_write_to_it_is_misuse(policies: Any, folder: Folder, arguments: tuple[str, ...]) -> None:
    ran = policies("apply", folder.path, *arguments)
    assert ran.status == 2
    assert "--redis" in ran.err


def test_the_schema_is_printed_or_written(policies: Any, tmp_path: Path) -> None:
    printed = policies("schema")
    assert (printed.status, printed.json["title"]) == (0, "failsoft policies")
    policies("schema", "--write", tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text() == printed.out
