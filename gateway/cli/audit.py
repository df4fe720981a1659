"""`failsoft audit`: who changed what, from where and when."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url, failure
from gateway.cli.exit_codes import UNREACHABLE
from gateway.clock import wall_s
from gateway.errors import StoreUnreachable
from gateway.observe.actor import Actor
from gateway.policy.audit_stream import AuditStream
from gateway.policy.redis_link import RedisLink

MOST_ENTRIES = 1000
_AGO = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def audit(
    since: Annotated[
        str | None, typer.Option(help="Not older than this: 90m, 12h, 7d, or a time such as 2027-01-01T08:00Z.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=20_000, help="The latest so many; over 1000 with --redis.")] = 200,
    url: Url = DEFAULT_URL,
    redis: Annotated[
        str | None, typer.Option(help="Read the policy store itself, where no gateway is up: its URL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
) -> None:
    """Show what was done with admin tokens, and each policy version that was applied.

    What only reads is not written down; attempts that were refused are. The admin token is read from
    FAILSOFT_ADMIN_TOKEN. Exits with 3 where no gateway answers, and where the store is away: then what the gateway
    that was asked remembers itself is all that is shown.
    """
    since_s = _since(since)
    if redis is None and limit > MOST_ENTRIES:
        message = f"a gateway shows {MOST_ENTRIES} at most: read the store itself with --redis URL"
        raise typer.BadParameter(message, param_hint="--limit")
    if redis is not None:
        found = asyncio.run(_of_store(redis, since_s, limit))
    else:
        found = AdminClient(url).get("/admin/audit", since=f"{since_s:.3f}", limit=str(limit))
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(found["entries"], Console(emoji=False, highlight=False))
    if not found["complete"]:
        raise failure(f"this is not all, only what one gateway remembers: {found['missing']}", UNREACHABLE)


async def _of_store(url: str, since_s: float, limit: int) -> dict[str, Any]:
    try:
        link = RedisLink(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--redis") from None
    try:
        entries = await AuditStream(link).read(since_s=since_s, limit=limit)
    except StoreUnreachable as error:
        raise failure(str(error), UNREACHABLE) from None
    finally:
        await link.close()
    return {"complete": True, "missing": None, "entries": [entry.as_json() for entry in entries]}


def _since(text: str | None) -> float:
    if text is None:
        return 0.0
    if (ago := _AGO.fullmatch(text)) is not None:
        return max(0.0, wall_s() - int(ago[1]) * _UNIT_S[ago[2]])
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        message = "is neither how long ago, such as 90m, 12h or 7d, nor a time, such as 2027-01-01T08:00Z"
        raise typer.BadParameter(message, param_hint="--since") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()


def _show(entries: list[dict[str, Any]], console: Console) -> None:
    if not entries:
        console.print("nothing was changed")
        return
    table = Table("when (UTC)", "who", "what", "outcome", "from", box=None, pad_edge=False)
    for entry in entries:
        when = dt.datetime.fromtimestamp(entry["at"], dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = f"{entry['what']} {entry['parameters']}".rstrip()
        outcome = entry["outcome"] + (f" ({entry['times']} times)" if entry["times"] > 1 else "")
        # Text, not markup: a client chose some of these words.
        table.add_row(*(Text(cell) for cell in (when, _who(entry) or "–", what, outcome, entry["where"] or "–")))
    console.print(table)


def _who(entry: dict[str, Any]) -> str:
    return Actor(entry["who"], entry["user"]).line
