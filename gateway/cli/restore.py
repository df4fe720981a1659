"""`failsoft restore`: end a degradation by order before its time."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.degrade import SHARED, All, Customer, target_of, warn_unless_shared
from gateway.cli.silent_gateways import warn_of_silent


def restore(
    customer: Customer = None,
    all_: All = False,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Take back the order for CUSTOMER; with --all, every order there is.

    It holds on all gateways that the store hears within a second, and names those that it does not hear. Exits with 1
    where there is no such customer, with 3 where no gateway answers. The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    answer = AdminClient(url).post("/admin/restore", target_of(customer, all_))
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    whom = "No customer" if all_ else customer
    if answer["changed"]:
        typer.echo(
            f"{whom} is degraded by order any more{SHARED if answer['shared'] else ''}."
            if all_
            else f"The order for {whom} is taken back{SHARED if answer['shared'] else ''}."
        )
    else:
        typer.echo("There was no order." if all_ else f"There was no order for {whom}.")
    if customer is not None and any(order["customer"] is None for order in answer["orders"]):
        typer.echo("An order for all customers is still in force: failsoft restore --all ends it.")
    warn_unless_shared(answer)
    warn_of_silent(answer["silent"])
