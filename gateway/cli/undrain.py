"""`failsoft undrain`: put a drained box back on duty."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.drain import path_of
from gateway.fleet.duty import RAMP_S


def undrain(
    box: Annotated[str, typer.Argument(metavar="BOX", help="A box that was drained.")],
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Let BOX take traffic again, in a ramp of some seconds.

    It holds on the one gateway that is asked, as drain does. Exits with 1 where there is no such box, with 3 where no
    gateway answers. The admin token is read from FAILSOFT_ADMIN_TOKEN.
    """
    answer = AdminClient(url).post(f"{path_of(box)}/undrain")
    state = answer["box"]
    if as_json:
        facts = {"box": box, "drained": state["drained"], "changed": answer["changed"], "scope": "this gateway"}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    elif not answer["changed"]:
        typer.echo(f"{box} was not drained on this gateway.")
    elif state["state"] == "closed":
        typer.echo(f"{box} is on duty again on this gateway, and takes its full share after {RAMP_S:.0f} s.")
    else:
        typer.echo(f"{box} is on duty again on this gateway, and gets traffic once it answers a probe.")
