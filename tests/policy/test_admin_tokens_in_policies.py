"""Admin tokens as ops write them: made by a command, checked with their place, in force as compiled."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.main import main
from gateway.errors import PolicyError
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import AdminToken, ApiKey, CompiledPolicy
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.policy_set import policy_set_from_document
from gateway.policy.validate import read_folder
from tests.policy.scenery import FLEET, Folder, digest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def failsoft(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def compiled(folder: Folder) -> CompiledPolicy:
    found = policy_set_from_document(read_folder(folder.path).document)  # as it comes out of the store
    return compile_policy(found, version=1, store_id="s", created_s=0, env={})


def faults(folder: Folder) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read_folder(folder.path)
    return [
        str(d).removeprefix(f"{folder.path}/")
        for d in caught.value.diagnostics
        if isinstance(d, Diagnostic) and d.severity == "error"
    ]


def test_the_command_makes_a_token_once_and_the_line_that_lets_it_in(failsoft: Run, folder: Folder) -> None:
    code, out, err = failsoft("policies", "new-admin-token", "dashboards", "--scope", "read", "--expires", "2027-01-01")
    assert code == 0
    token = out.strip()
    assert token.startswith("fsa_")
    assert token not in err
    lines = err.partition("admin_tokens:\n")
    folder.write("fleet.yaml", FLEET + lines[1] + lines[2])
    policy = compiled(folder)
    found = policy.admin(token.encode(), dt.date(2027, 1, 1))
    assert found is not None
    assert (found.name, found.scope, found.expires) == ("dashboards", "read", dt.date(2027, 1, 1))
    assert policy.admin(token.encode(), dt.date(2027, 1, 2)) is None
    assert token.encode() not in read_folder(folder.path).document


def test_two_tokens_are_never_the_same_and_json_has_all_of_one(failsoft: Run) -> None:
    made = [json.loads(failsoft("policies", "new-admin-token", "x", "--scope", "write", "--json")[1]) for _ in "12"]
    assert made[0]["token"] != made[1]["token"]
    assert digest(made[0]["token"]) == made[0]["sha256"]
    assert made[0]["sha256"] in made[0]["yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no name", "--scope", "read"),
        ("env", "--scope", "read"),
        ("x", "--scope", "all"),
        ("x",),
        ("x", "--scope", "read", "--expires", "soon"),
    ],
)
def test_what_would_be_no_token_is_misuse(failsoft: Run, arguments: tuple[str, ...]) -> None:
    assert failsoft("policies", "new-admin-token", *arguments)[0] == 2


def test_every_mistake_in_a_token_has_its_place(folder: Folder) -> None:
    one, other = digest("one"), digest("other")
    folder.write(
        "fleet.yaml",
        FLEET
        + f"""\
admin_tokens:
  - {{name: a, sha256: "{one}", scope: read}}
  - {{name: a, sha256: "{other}", scope: write}}
  - {{name: b, sha256: "{one}", scope: write}}
  - {{name: env, sha256: "{digest("third")}", scope: write}}
  - {{name: c, sha256: "{digest("key-acme")}", scope: write}}
""",
    )
    assert faults(folder) == [
        "fleet.yaml:13:6: error: admin_tokens[1].name: this token's name is taken (by admin_tokens[0])",
        "fleet.yaml:14:15: error: admin_tokens[2].sha256: this token is there twice (first at admin_tokens[0])",
        "fleet.yaml:15:6: error: admin_tokens[3].name: env is what the gateway's own FAILSOFT_ADMIN_TOKEN is called",
        f"fleet.yaml:16:15: error: admin_tokens[4].sha256: this is a customer's API key "
        f"(at {folder.path}/customers/acme.yaml:2:12)",
    ]


def test_a_token_itself_in_the_policies_is_refused_and_not_repeated(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET + "admin_tokens:\n  - {name: a, sha256: fsa_secret, scope: raed}\n")
    first, second = faults(folder)
    assert "fsa_secret" not in first + second
    assert first.startswith("fleet.yaml:12:15: error: admin_tokens[0].sha256: is not a SHA-256")
    assert second.startswith("fleet.yaml:12:35: error: admin_tokens[0].scope: ")


DAYS = st.dates(dt.date(2026, 1, 1), dt.date(2027, 12, 31))


@settings(max_examples=30, deadline=None)
@given(expiries=st.lists(st.none() | DAYS, min_size=1, max_size=4), today=DAYS)
def test_each_of_several_keys_is_valid_until_its_own_last_day(expiries: list[dt.date | None], today: dt.date) -> None:
    """Keys that overlap are how one is rotated without a gap."""
    extra = [
        f"  - {{sha256: '{digest(f'key {i}')}', name: 'key {i}'{_expires(day)}}}" for i, day in enumerate(expiries)
    ]
    policy = _compile("customer: acme\nadapters: [acme_v1]\napi_keys:\n" + "\n".join(extra))
    for i, last in enumerate(expiries):
        found = policy.authenticate(f"key {i}".encode(), today)
        assert (found is policy.customers["acme"]) == (last is None or today <= last)
    assert policy.authenticate(b"another", today) is None


def _expires(day: dt.date | None) -> str:
    return "" if day is None else f", expires: {day}"


def _compile(customer: str) -> CompiledPolicy:
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name) / "policies")
        folder.write("customers/acme.yaml", customer)
        return compiled(folder)


def test_no_key_and_no_token_shows_its_digest_where_people_look(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET + f'admin_tokens: [{{name: a, sha256: "{digest("one")}", scope: read}}]\n')
    policy = compiled(folder)
    assert all(isinstance(entry, ApiKey) for entry in policy.keys.values())
    assert all(isinstance(entry, AdminToken) for entry in policy.admin_tokens.values())
