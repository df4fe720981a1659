"""`failsoft usage`: what customers have used, from a running gateway or from the store."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Set
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.accounts.account_store import AccountStore
from gateway.accounts.usage import SYNTHETIC_DRILL
from gateway.accounts.view import usage_rows
from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.speech import failure
from gateway.cli.whole_table import print_whole
from gateway.clock import today_utc
from gateway.control.names import unknown_customer
from gateway.errors import PolicyError
from gateway.policy.policy_set import policy_set_from_document
from gateway.policy.store import PolicyStore

Row = dict[str, Any]

PARTS = ("own_requests", "degraded_requests")
DRILLS = "drill_requests"
"""The rest of ``requests``: the gateway's own, in a customer's name."""
SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "estimated", "unpriced", "usd")
_AGO = re.compile(r"(\d{1,5})([hd])")


def usage(
    since: Annotated[str, typer.Option(help="The first day, UTC: 2026-11-01, or how long ago: 24h, 7d.")] = "24h",
    until: Annotated[str | None, typer.Option(help="The last day, UTC; today when left out.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer only.")] = None,
    by: Annotated[Literal["customer", "day"] | None, typer.Option(help="One row for each of these only.")] = None,
    url: Url = DEFAULT_URL,
    redis: Annotated[
        str | None, typer.Option(envvar="FAILSOFT_REDIS", help="Read the store itself, without asking a gateway.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV.")] = False,
) -> None:
    """Show what customers have used on whole days, UTC: requests, tokens and USD, by who answered and why.

    With --redis the store is read, else the gateway at --url is asked, with the admin token of FAILSOFT_ADMIN_TOKEN.
    What was used in the last second may be missing. Exits with 1 where nothing is known of --customer, with 3 where
    neither can be reached.
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv", param_hint="--csv")
    last = today_utc() if until is None else _day(until, "--until")
    first = _day(since, "--since")
    if first > last:
        raise typer.BadParameter("is after the last day", param_hint="--since")
    rows = _read(redis, url, first, last, customer)
    shown = added_up(rows, by)
    if as_json:
        document = {"since": first.isoformat(), "until": last.isoformat(), "usage": shown}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    elif as_csv:
        _write_csv(shown, by)
    else:
        _show(shown, by, first, last)


def added_up(rows: Iterable[Row], by: Literal["customer", "day"] | None) -> list[Row]:
    """One row for each customer, kind of target and reason, or for each customer or day with how much was degraded."""
    key: Callable[[Row], tuple[str, ...]] = lambda row: tuple(row[name] for name in _columns(by))  # noqa: E731
    sums: dict[tuple[str, ...], Row] = {}
    for row in rows:
        found = sums.get(key(row))
        if found is None:
            found = sums[key(row)] = {**dict(zip(_columns(by), key(row), strict=True)), **dict.fromkeys(SUMS, 0)}
            if by is not None:
                found |= dict.fromkeys((*PARTS, DRILLS), 0)
        for name in SUMS:
            found[name] += row[name]
        if by is not None:
            found[_part(row)] += row["requests"]
    for found in sums.values():
        found["usd"] = round(found["usd"], 9)
    return [sums[name] for name in sorted(sums)]


def _part(row: Row) -> str:
    if row["reason"] == SYNTHETIC_DRILL:
        return DRILLS
    return "own_requests" if row["served_by"] == "own" else "degraded_requests"


def _columns(by: str | None) -> tuple[str, ...]:
    return ("customer", "served_by", "reason") if by is None else (by,)


def _read(redis: str | None, url: str, first: dt.date, last: dt.date, customer: str | None) -> list[Row]:
    if redis is not None:
        return asyncio.run(_from_store(redis, first, last, customer))
    query = {"since": first.isoformat(), "until": last.isoformat()}
    if customer is not None:
        query["customer"] = customer
    rows: list[Row] = AdminClient(url).get("/admin/usage", **query)["usage"]
    return rows


async def _from_store(redis: str, first: dt.date, last: dt.date, customer: str | None) -> list[Row]:
    try:
        store = AccountStore(redis)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--redis") from None
    try:
        rows = await usage_rows(store, first, last, customer)
    finally:
        await store.close()
    if customer is not None and not rows and customer not in (known := await _customers(redis)):
        raise failure(unknown_customer(customer, known).message, FOUND_WRONG)
    return rows


async def _customers(redis: str) -> Set[str]:
    """Those of the store's current policies. Raises typer.Exit where those cannot be read."""
    store = PolicyStore(redis)
    try:
        head = await store.head()
        if head is None:
            return set()
        found = policy_set_from_document((await store.load(head.version)).document)
    except PolicyError as error:
        raise failure(f"the store's current version cannot be read: {error}", FOUND_WRONG) from None
    finally:
        await store.close()
    return {customer.customer for customer in found.customers}


def _day(text: str, option: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        pass
    ago = _AGO.fullmatch(text)
    if ago is None:
        raise typer.BadParameter("is a day such as 2026-11-01, or how long ago: 24h, 7d", param_hint=option)
    hours = int(ago[1]) * (24 if ago[2] == "d" else 1)
    return today_utc() - dt.timedelta(days=math.ceil(hours / 24))


def _write_csv(rows: list[Row], by: str | None) -> None:
    names = [*_columns(by), *(() if by is None else PARTS), *SUMS, *(() if by is None else (DRILLS,))]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _show(rows: list[Row], by: str | None, first: dt.date, last: dt.date) -> None:
    console = Console(highlight=False, emoji=False)
    days = f"{first}" if first == last else f"{first} to {last}"
    if not rows:
        console.print(f"nothing was used on {days} (UTC)")
        return
    extra = () if by is None else PARTS
    names = [*_columns(by), *extra, "requests", "prompt_tokens", "completion_tokens", "usd"]
    table = Table(*(name.replace("_", " ") for name in names), title=f"{days} (UTC)")
    for row in rows:
        cells = [f"{row[name]:.4f}" if name == "usd" else escape(f"{row[name]}") for name in names]
        if row["unpriced"]:
            cells[-1] += f" + {row['unpriced']} of unknown price"
        table.add_row(*cells)
    print_whole(console, table)
    estimated = sum(row["estimated"] for row in rows)
    if estimated:
        console.print(f"{estimated} answers did not say what they took, as they broke off: it was estimated")
