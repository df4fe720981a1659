"""What commands print in 80 columns, as into a pipe or a CI log: folded or stacked, and nothing cut off."""

from __future__ import annotations

import pytest

from gateway.cli import usage as usage_command
from gateway.cli.explain import explain
from gateway.cli.status import status
from gateway.errors import ConnectError
from gateway.policy.compiled import CompiledPolicy
from tests.cli.test_usage_command import row
from tests.control.conftest import House, run

LONG = "the-customer-with-a-rather-long-name"


@pytest.fixture
def house(house: House, policy: CompiledPolicy) -> House:
    house.take(policy)
    house.now += 3
    box = house.fleets.all()[0]
    permit = box.admit(None, house.now)
    assert permit is not None
    permit.failed(ConnectError("connection refused by 10.0.0.11:8000"), house.now)
    return house


def unbroken(text: str, words: tuple[str, ...]) -> None:
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in words:
        assert word in text, f"{word} in\n{text}"


async def test_status_in_80_columns_cuts_nothing(house: House, url: str) -> None:
    shown = await run(status, "--url", url, columns=80)
    unbroken(
        shown.stdout, ("serving", "circuit open", "connection refused by 10.0.0.11:8000", "acme_v3", "not proven yet")
    )


async def test_explain_in_80_columns_cuts_nothing(house: House, url: str) -> None:
    shown = await run(explain, "--customer", "acme", "--model", "acme_v3", "--url", url, columns=80)
    unbroken(shown.stdout, ("last resort", "open", "provider:hosted", "box:b", "not reached"))


@pytest.mark.parametrize("by", [None, "customer"])
def test_usage_in_80_columns_cuts_nothing(
    by: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        {
            **row("2026-11-01", "provider:azure-sweden-central", 1234567, 0.1),
            "customer": LONG,
            "reason": "backend_saturated",
        }
    ]
    monkeypatch.setattr(usage_command, "_read", lambda *arguments: rows)
    usage_command.usage(since="24h", until=None, customer=None, by=by, url="", redis=None, as_json=False, as_csv=False)  # type: ignore[arg-type]
    words = (
        (LONG, "1234567", "0.1000") if by else (LONG, "provider:azure-sweden-central", "backend_saturated", "1234567")
    )
    unbroken(capsys.readouterr().out, words)
