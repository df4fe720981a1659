"""`failsoft policies` from the outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.policies.annotations import annotation
from gateway.errors import StoreUnreachable
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.pruning import KEPT_WHOLE
from gateway.policy.standing import Replica
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder


@pytest.fixture
def url(tmp_path: Path) -> Any:
    """A store in a thread's own loop, as the command runs a loop itself."""
    with asyncio.Runner() as runner:
        server = EmbeddedValkey(tmp_path / "redis")
        runner.run(server.start())
        yield server.url
        runner.run(server.stop())


def test_a_folder_that_holds_together_is_confirmed(policies: Any, folder: Folder) -> None:
    ran = policies("validate", folder.path)
    assert ran.status == 0
    assert "1 customer, 1 adapter, 2 boxes" in ran.err


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


def test_mistakes_stand_beside_the_lines_of_a_pull_request(
    policies: Any, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder.path.parent))
    folder.customer("acme", "ttft_buget: 1s\nplain_budget: 50%\n")
    ran = policies("validate", folder.path, "--format", "github")
    assert ran.status == 1
    where = "file=policies/customers/acme.yaml"
    assert ran.out.splitlines() == [
        f"::error {where},title=policies%3A ttft_buget,line=4,col=1::"
        "ttft_buget: unknown key (did you mean ttft_budget?)",
        f"::error {where},title=policies%3A plain_budget,line=5,col=1::"
        "plain_budget: is not a duration: write a number with its unit, such as 250ms, 2s or 10m",
    ]
    assert "acme.yaml:4:1: error" in ran.err


def test_inside_github_actions_annotations_come_by_themselves(
    policies: Any, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    folder.customer("acme", "x: 1\n")
    assert policies("validate", folder.path).out.startswith("::error file=")
    assert policies("validate", folder.path, "--format", "text").out == ""
    assert not policies("validate", folder.path, "--json").json["ok"]


def test_an_annotation_keeps_its_shape_whatever_it_says(tmp_path: Path) -> None:
    found = Diagnostic("a,b:c.yaml", 0, 0, "", "100 % of\nlines, all: of them", severity="warning")
    assert annotation(found, tmp_path) == (
        "::warning file=a%2Cb%3Ac.yaml,title=policies::100 %25 of%0Alines, all: of them"
    )


def test_json_and_another_form_exclude_each_other(policies: Any, folder: Folder) -> None:
    assert policies("validate", folder.path, "--json", "--format", "github").status == 2
    assert policies("validate", folder.path, "--format", "json").json["ok"]


def test_people_see_colours_and_pipes_do_not(policies: Any, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.customer("acme", "x: 1\n")
    assert "\x1b[" not in policies("validate", folder.path).err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31merror" in policies("validate", folder.path).err


def test_a_difference_is_told_in_words_and_as_lines(policies: Any, folder: Folder, url: str) -> None:
    for name in ("acme", "globex", "initech", "umbrella"):
        folder.customer(name)
    policies("apply", folder.path, "--redis", url)
    same = policies("diff", folder.path, "--redis", url)
    assert (same.status, same.out) == (0, "")
    assert "nothing changes for anybody beside version 1" in same.err

    folder.write("defaults.yaml", "defaults: {priority: low}\n")
    folder.customer("acme", "hosted: {allowed: false}\n")
    ran = policies("diff", folder.path, "--redis", url)
    assert ran.status == 1
    words, _, lines = ran.out.partition("\n\n")
    assert words.splitlines() == [
        "acme: may no longer reach hosted providers",
        "acme: fallback is nothing (before: provider hosted)",
        "acme, globex, initech and 1 more: priority is low (before: standard)",
    ]
    assert "--- a/customers/acme.yaml\n+++ b/customers/acme.yaml\n@@" in lines
    assert "+hosted: {allowed: false}\n" in lines
    assert "--- /dev/null\n+++ b/defaults.yaml" in lines
    assert policies("diff", folder.path, "--redis", url, "--words").out.strip() == words.strip()
    facts = policies("diff", folder.path, "--redis", url, "--json").json
    assert facts["against"]["version"] == 1
    assert len(facts["changes"]) == 6
    assert facts["changes"][0] == {
        "kind": "customer", "name": "acme", "change": "may no longer reach hosted providers",
    }  # fmt: skip
    assert facts["lines"].strip() == lines.strip()


def test_a_comment_changes_nothing_for_anybody(policies: Any, folder: Folder, url: str) -> None:
    policies("apply", folder.path, "--redis", url)
    folder.customer("acme", "# why it is so\n")
    ran = policies("diff", folder.path, "--redis", url)
    assert ran.status == 0
    assert "only the text of the files" in ran.err
    assert "+# why it is so" in ran.out


def test_beside_an_empty_store_all_is_new(policies: Any, folder: Folder, url: str) -> None:
    ran = policies("diff", folder.path, "--redis", url, "--words")
    assert ran.status == 1
    assert "beside an empty store" in ran.err
    assert "acme: new customer: adapter acme_v1, 1 key" in ran.out


def test_a_folder_with_errors_is_compared_with_nothing(policies: Any, folder: Folder, url: str) -> None:
    folder.customer("acme", "x: 1\n")
    ran = policies("diff", folder.path, "--redis", url)
    assert (ran.status, ran.out) == (1, "")
    assert "nothing was compared" in ran.err


def test_where_no_gateway_lives_apply_says_so(policies: Any, folder: Folder, url: str) -> None:
    ran = policies("apply", folder.path, "--redis", url)
    assert ran.status == 0
    assert "no gateway says that it lives on this store" in ran.err
    found = policies("apply", folder.path, "--redis", url, "--json").json
    assert found["gateways"] == {"in_force": [], "not_in_force": []}
    assert "gateways" not in policies("apply", folder.path, "--redis", url, "--json", "--no-wait").json


def test_the_history_is_told_newest_first(policies: Any, folder: Folder, url: str) -> None:
    assert "holds no version yet" in policies("history", "--redis", url).err
    for note in ("first", "second [bold]", "third"):
        policies("apply", folder.path, "--redis", url, "--note", note)
    shown = policies("history", "--redis", url).out.splitlines()
    assert [line.split()[0] for line in shown] == ["version", "3", "2", "1"]
    assert "second [bold]" in shown[2]
    assert " UTC" in shown[2]
    found = policies("history", "--redis", url, "--limit", "2", "--json").json["versions"]
    assert [(one["version"], one["note"]) for one in found] == [(3, "third"), (2, "second [bold]")]
    assert found[0].keys() == {"store_id", "version", "digest", "created", "note", "author", "customers", "pruned"}


def test_a_version_whose_content_is_no_longer_kept_is_listed_and_neither_shown_nor_rolled_back_to(
    policies: Any, folder: Folder, url: str
) -> None:
    policies("apply", folder.path, "--redis", url, "--note", "first")

    async def many() -> None:
        store = PolicyStore(url)
        for _ in range(KEPT_WHOLE):
            await store.apply(read_folder(folder.path))
        await store.close()

    asyncio.run(many())
    last = policies("history", "--redis", url, "--limit", "60").out.splitlines()[-1].split()
    assert (last[0], last[-2:]) == ("1", ["(pruned)", "first"])
    found = policies("history", "--redis", url, "--limit", "60", "--json").json["versions"]
    assert [one["pruned"] for one in found] == [False] * KEPT_WHOLE + [True]
    for command in ("show", "rollback"):
        ran = policies(command, "1", "--redis", url)
        assert ran.status == 1
        assert "the content of version 1 is no longer kept" in ran.err
    assert policies("history", "--redis", url, "--json").json["versions"][0]["version"] == KEPT_WHOLE + 1


def test_in_github_actions_the_author_is_whoever_caused_the_run(
    policies: Any, folder: Folder, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_ACTOR", "octocat")
    policies("apply", folder.path, "--redis", url)
    assert policies("history", "--redis", url, "--json").json["versions"][0]["author"] == "octocat"


def test_a_rollback_is_a_new_version_with_the_old_content_to_the_letter(
    policies: Any, folder: Folder, url: str
) -> None:
    folder.customer("acme", "# as it was\n")
    first = policies("apply", folder.path, "--redis", url, "--json").json
    folder.customer("globex")
    policies("apply", folder.path, "--redis", url)
    ran = policies("rollback", "1", "--redis", url, "--note", "globex was a slip", "--json")
    assert (ran.status, ran.json["version"], ran.json["digest"]) == (0, 3, first["digest"])
    shown = policies("show", "--redis", url)
    assert "# as it was" in shown.out
    assert "globex" not in shown.out
    assert "rollback to 1: globex was a slip" in shown.err


def test_a_rollback_is_refused_where_it_cannot_be_right(policies: Any, folder: Folder, url: str) -> None:
    policies("apply", folder.path, "--redis", url)
    assert "there is no version 9; the current one is 1" in policies("rollback", "9", "--redis", url).err
    policies("apply", folder.path, "--redis", url)
    ran = policies("rollback", "1", "--redis", url, "--base", "1")
    assert ran.status == 1
    assert "based on version 1, and the store is at version 2" in ran.err


def test_a_store_that_goes_away_while_gateways_are_waited_for_is_told_with_what_was_written(
    policies: Any, folder: Folder, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: PolicyStore) -> tuple[Replica, ...]:
        raise StoreUnreachable("the store cannot be reached")

    monkeypatch.setattr(PolicyStore, "replicas", away)
    ran = policies("apply", folder.path, "--redis", url)
    assert ran.status == 3
    assert "version 1 is written; which gateways have it is not known" in ran.err
    ran = policies("apply", folder.path, "--redis", url, "--json")
    assert (ran.status, ran.json["version"], ran.json["gateways"]) == (3, 2, None)
