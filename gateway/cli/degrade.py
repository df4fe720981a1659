"""`failsoft degrade`: have customers answered by their fallback for a while, on purpose."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.order_line import names_of, whom_of
from gateway.cli.silent_gateways import warn_of_silent
from gateway.cli.speech import say
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

    It holds on all gateways that the store hears within a second, also on those that start later, and ends by itself;
    gateways that the store does not hear are named. Where no step can answer, the own adapter still does; a request
    with x-failsoft-fallback: never is not touched. Another order for the same customer takes the first's place. Exits
    with 1 where there is no such customer, or where no step of some customer's fallback can answer; with 3 where no
    gateway answers. The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    asked = target_of(customer, all_)
    try:
        for_s = parse_interval(for_, LONGEST_S)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    answer = AdminClient(url).post("/admin/degrade", {**asked, "for": for_, "reason": reason})
    order = answer["order"]
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        if customer is None or not order["unanswerable"]["count"]:
            whom = whom_of(order) if customer is not None else whom_of(order).capitalize()
            typer.echo(
                f"{whom} answered by the fallback for {format_interval(for_s)} from now on"
                f"{SHARED if answer['shared'] else ''}. {_how_to_end(customer)}"
            )
        _tell_whom_it_does_not_reach(order, customer)
        warn_unless_shared(answer)
        warn_of_silent(answer["silent"])
    if order["unanswerable"]["count"]:
        raise typer.Exit(FOUND_WRONG)


def _tell_whom_it_does_not_reach(order: dict[str, Any], customer: str | None) -> None:
    if order["unanswerable"]["count"]:
        why = "no step of the fallback can answer: the own adapter goes on, not degraded"
        say(f"not degraded: {names_of(order['unanswerable'])}: {why}", style="red")
        if customer is not None:
            say(f"The order stands, should that change. {_how_to_end(customer)}")
    if order["text_only"]["count"]:
        why = "requests with tools or for JSON still get the own adapter, as the fallback can only say a fixed text"
        say(f"in part: {names_of(order['text_only'])}: {why}", style="yellow")
    if order["boxes_only"]["count"]:
        why = "the fallback is the base model on the boxes alone: with no box there is no answer to every request"
        say(f"by the boxes: {names_of(order['boxes_only'])}: {why}", style="yellow")


SHARED = ", on every gateway that the store hears within a second"


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
