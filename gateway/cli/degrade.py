"""`failsoft degrade`: have customers answered by their fallback for a while, on purpose."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.orders.order import LONGEST_S
from gateway.policy.durations import format_interval, parse_interval

Customer = Annotated[str | None, typer.Argument(metavar="CUSTOMER", help="A customer of the policy in force.")]
All = Annotated[bool, typer.Option("--all", help="Every customer.")]


def degrade(
    for_: Annotated[str, typer.Option("--for", help="How long, such as 10m or 2h; at most 24h.")],
    customer: Customer = None,
    all_: All = False,
    reason: Annotated[str, typer.Option(help="Why: shown to whoever looks while it lasts.")] = "",
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Have CUSTOMER answered by the steps of its fallback, marked as degraded: forced.

    It holds on all gateways of the store within a second, also on those that start later, and ends by itself. Where no
    step can answer, the own adapter still does; a request with x-failsoft-fallback: never is not touched. Another order
    for the same customer takes the place of the first. Exits with 1 where there is no such customer, with 3 where no
    gateway answers. The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    asked = target_of(customer, all_)
    try:
        for_s = parse_interval(for_, LONGEST_S)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    answer = AdminClient(url).post("/admin/degrade", {**asked, "for": for_, "reason": reason})
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    whom = "All customers are" if all_ else f"{customer} is"
    typer.echo(
        f"{whom} answered by the fallback for {format_interval(for_s)} from now on"
        f"{SHARED if answer['shared'] else ''}. {_how_to_end(customer)}"
    )
    warn_unless_shared(answer)


SHARED = ", on every gateway of this store within a second"


def target_of(customer: str | None, all_: bool) -> dict[str, Any]:
    """Whom it is about, as the admin API is told."""
    if all_ == (customer is not None):
        raise typer.BadParameter("name one customer, or give --all", param_hint="CUSTOMER")
    return {"all": True} if all_ else {"customer": customer}


def warn_unless_shared(answer: dict[str, Any]) -> None:
    """Say it where the other gateways do not know."""
    if not answer["shared"]:
        sys.stderr.write(
            "failsoft: the store is away, so that it holds on the gateway that was asked alone; "
            "the others follow when the store is back. Until then tell each of them with --url.\n"
        )


def _how_to_end(customer: str | None) -> str:
    return f"To end it before: failsoft restore {customer or '--all'}"
