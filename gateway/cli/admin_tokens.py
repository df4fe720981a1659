"""`failsoft policies new-admin-token`: a token of the admin API, and the line of fleet.yaml that lets it in."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import sys
from typing import Annotated, Literal

import typer

from gateway.policy.compiled import FROM_ENVIRONMENT
from gateway.policy.names import check_name

MARK = "fsa_"
"""What such tokens begin with, so that people and scanners of repositories know one when they see it."""


def new_admin_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the audit log calls whoever holds it.")],
    scope: Annotated[Literal["read", "write"], typer.Option(help="read: look at everything; write: change things.")],
    expires: Annotated[str | None, typer.Option(help="The last day on which it is valid, such as 2027-01-01.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print token, digest and line as JSON.")] = False,
) -> None:
    """Make an admin token. It is printed once and kept nowhere; the policies hold its SHA-256 only."""
    entry = f"name: {_name(name)}, sha256: {{}}, scope: {scope}"
    if expires is not None:
        entry += f", expires: {_day(expires)}"
    token = MARK + secrets.token_urlsafe(32)
    digest = "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    line = "- {" + entry.format(f'"{digest}"') + "}"
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "token": token, "sha256": digest, "yaml": line}, indent=2) + "\n")
        return
    sys.stdout.write(f"{token}\n")
    sys.stderr.write(
        "This is the token: it is shown this once. Its line in fleet.yaml, in force as soon as it is applied:\n\n"
        f"admin_tokens:\n  {line}\n"
    )


def _name(name: str) -> str:
    try:
        check_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    if name == FROM_ENVIRONMENT:
        raise typer.BadParameter("is what the gateway's own FAILSOFT_ADMIN_TOKEN is called", param_hint="NAME")
    return json.dumps(name)


def _day(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter("is not a day, such as 2027-01-01", param_hint="--expires") from None
