"""`failsoft usage` without a gateway: sums, forms, misuse."""

from __future__ import annotations

import pytest

from gateway.accounts.usage import SYNTHETIC_DRILL
from gateway.cli.main import main
from gateway.cli.usage import added_up

NOTHING = {"cached_tokens": 0, "estimated": 0, "unpriced": 0}


def row(day: str, served_by: str, requests: int, usd: float = 0.0) -> dict[str, object]:
    tokens = {"prompt_tokens": 10 * requests, "completion_tokens": 2 * requests}
    reason = "none" if served_by == "own" else "backend_down"
    where = {"day": day, "customer": "acme", "served_by": served_by, "reason": reason}
    return {**where, "requests": requests, **tokens, **NOTHING, "usd": usd}


ROWS = [row("2026-11-01", "own", 3), row("2026-11-01", "provider:hosted", 1, 0.1), row("2026-11-02", "own", 4)]


def test_rows_are_added_up_by_customer_target_and_reason_or_by_one_of_them() -> None:
    assert [(one["served_by"], one["reason"], one["requests"], one["usd"]) for one in added_up(ROWS, None)] == [
        ("own", "none", 7, 0),
        ("provider:hosted", "backend_down", 1, 0.1),
    ]
    (acme,) = added_up(ROWS, "customer")
    assert (acme["requests"], acme["own_requests"], acme["degraded_requests"]) == (8, 7, 1)
    assert [(one["day"], one["requests"]) for one in added_up(ROWS, "day")] == [("2026-11-01", 4), ("2026-11-02", 4)]


def test_drills_are_told_apart_from_what_customers_asked() -> None:
    drill = row("2026-11-01", "provider:hosted", 2, 0.2) | {"reason": SYNTHETIC_DRILL}
    (acme,) = added_up([*ROWS, drill], "customer")
    parts = (acme["own_requests"], acme["degraded_requests"], acme["drill_requests"])
    assert (acme["requests"], parts) == (10, (7, 1, 2))
    assert round(acme["usd"], 6) == 0.3
    reasons = [one["reason"] for one in added_up([*ROWS, drill], None)]
    assert reasons == ["none", "backend_down", SYNTHETIC_DRILL]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "2026-11-05", "--until", "2026-11-04"],
        ["--json", "--csv"],
        ["--redis", "ftp://x"],
    ],
)
def test_misuse_is_said_before_anybody_is_asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["usage", *arguments])
    assert ended.value.code == 2
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize("where", [["--redis", "redis://127.0.0.1:9"], ["--url", "http://127.0.0.1:9"]])
def test_who_cannot_be_reached_is_named(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["usage", *where])
    assert ended.value.code == 3
    assert "127.0.0.1:9" in capsys.readouterr().err
