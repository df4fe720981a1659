"""`failsoft drain`: take a box off duty for maintenance, without failing a request."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url, failure
from gateway.cli.exit_codes import FOUND_WRONG
from gateway.policy.durations import format_duration, parse_duration

POLL_S = 0.25
TIMEOUT = "5m"


def drain(
    box: Annotated[str, typer.Argument(metavar="BOX", help="A box of the policy in force, such as a100-a.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return once nothing is in flight at the box.")] = False,
    timeout: Annotated[
        str | None, typer.Option(help="How long --wait waits, such as 90s or 10m.", show_default=TIMEOUT)
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Send nothing new to BOX; what runs there goes on to its end.

    It holds on the one gateway that is asked, with all its workers, not on its replicas, and until that gateway ends; a
    new policy version does not end it. Exits with 1 where there is no such box or --wait ran out of time, with 3 where
    no gateway answers. The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    timeout_s = _seconds(timeout, wait=wait)
    client = AdminClient(url)
    began = time.monotonic()
    answer = client.post(f"{path_of(box)}/drain")
    state = answer["box"]
    done = True
    if wait:
        state, done = _wait(client, state, until=began + timeout_s)
    left = state["customers_in_flight"]
    if as_json:
        facts: dict[str, Any] = {"box": box, "drained": state["drained"], "changed": answer["changed"]}
        facts |= {"customers_in_flight": left, "scope": "this gateway"}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    elif done:
        again = "is drained" if answer["changed"] else "was drained already"
        typer.echo(f"{box} {again} on this gateway: nothing new goes there, {_running(left)}.")
    if not state["drained"]:
        raise failure(f"{box} was put back on duty on this gateway meanwhile.", FOUND_WRONG)
    if not done:
        raise failure(
            f"after {format_duration(timeout_s)} {_running(left)} at {box}. It stays drained on this gateway: "
            "wait again, or stop the box and have them answered elsewhere where nothing was sent yet.",
            FOUND_WRONG,
        )


def path_of(box: str) -> str:
    """The box in the admin API, whatever was typed for a name."""
    return f"/admin/boxes/{quote(box, safe='')}"


def _seconds(timeout: str | None, *, wait: bool) -> float:
    if timeout is not None and not wait:
        raise typer.BadParameter("goes with --wait", param_hint="--timeout")
    try:
        return parse_duration(timeout or TIMEOUT)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from None


def _wait(client: AdminClient, state: dict[str, Any], *, until: float) -> tuple[dict[str, Any], bool]:
    """The box as it was last, and whether it came to rest (or is no longer drained)."""
    name = state["name"]
    console = Console(stderr=True, highlight=False, emoji=False)
    told = None
    with console.status("") as progress:
        while state["drained"] and (left := state["customers_in_flight"]):
            if time.monotonic() >= until:
                return state, False
            if left != told:
                told = left
                line = f"waiting for {escape(name)}: {_running(left)}"
                progress.update(line)
                if not console.is_terminal:
                    console.print(line)
            time.sleep(POLL_S)
            state = client.get(path_of(name))
    return state, True


def _running(count: int) -> str:
    if not count:
        return "nothing is in flight there"
    return "1 request is still in flight" if count == 1 else f"{count} requests are still in flight"
