"""`failsoft drill`: find out now whether a customer's fallback works."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.whole_table import print_whole

TIMEOUT_S = 90.0
"""A drill takes at most 30 s, and a customer's steps are tried beside each other."""


def drill(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="A customer of the policy in force.")],
    provider: Annotated[str | None, typer.Option(help="Only the steps that ask this provider.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Ask each step of CUSTOMER's fallback a small question, by the way that its degraded requests take.

    With the step's own model, system prompt and dropped fields; fixed text is not tried. All gateways of the store know
    the outcome. What the answers take is CUSTOMER's: where its cap is spent a step is held back. Exits with 1 where a
    step failed or was held back, there is none to try or no such customer, with 3 where no gateway answers.
    The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    asked: dict[str, Any] = {"customer": customer} | ({} if provider is None else {"provider": provider})
    answer = AdminClient(url).post("/admin/drills", asked, timeout_s=TIMEOUT_S)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        _show(answer, Console(highlight=False, emoji=False))
    if not answer["ok"]:
        raise typer.Exit(FOUND_WRONG)


def _show(answer: dict[str, Any], console: Console) -> None:
    table = Table("step", "outcome", "answered by", "first content", "also proves it for")
    for proof in answer["proofs"]:
        last = proof["last"] or _NEVER
        held_back = proof["held_back"]
        first_ms = None if held_back else last["first_content_ms"]
        others = [name for name in proof["customers"] if name != answer["customer"]]
        count = len(others) + proof["more_customers"]
        table.add_row(
            escape(proof["step"]),
            _outcome(held_back, last),
            "–" if held_back else escape(last["served_model"]) or "–",
            "–" if first_ms is None else f"{first_ms} ms",
            "–" if not count else f"{count} other customer{'s' if count > 1 else ''}",
        )
    print_whole(console, table)


_NEVER: dict[str, Any] = {"ok": False, "error": "", "served_model": "", "first_content_ms": None}


def _outcome(held_back: str, last: dict[str, Any]) -> str:
    if held_back:
        return f"[yellow]held back[/]: {escape(held_back)}"
    return "[green]works[/]" if last["ok"] else f"[red]failed[/]: {escape(last['error'])}"
