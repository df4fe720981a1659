"""`failsoft backend command`: the command line that starts a box's vLLM."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import msgspec
import typer

from backend.objections import has_errors
from backend.serve_plan import by_program, shell_text
from backend.vllm_flags import known_versions, release
from gateway.cli.backend_box import DEFAULT_POLICIES, BoxName, Policies, find_box, show_objections
from gateway.cli.exit_codes import FOUND_WRONG

NEWEST = known_versions()[-1]


def command(
    box: BoxName,
    policies: Policies = DEFAULT_POLICIES,
    vllm_version: Annotated[str, typer.Option(metavar="V", help="The release of vLLM that is to run.")] = NEWEST,
    as_json: Annotated[bool, typer.Option("--json", help="Print arguments, variables and warnings as JSON.")] = False,
) -> None:
    """Print the command line that starts BOX as fleet.yaml has it, for a shell or for machines.

    Keys are references to environment variables, never values. Warnings go to stderr. Exits with 1 where the release
    of vLLM would refuse the command, or would take it and fail later.
    """
    try:
        of = release(vllm_version)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--vllm-version") from None
    found = find_box(box, policies, of)
    refused = found.plan is None or has_errors(found.objections)
    made = None if found.plan is None or refused else by_program("vllm", found.plan, of)
    if as_json:
        facts = {
            "box": found.name,
            "fleet": found.fleet,
            "url": found.url,
            "vllm_version": of.version,
            "command": None if made is None else list(made.arguments),
            "env": None if made is None else dict(made.environment),
            "objections": [msgspec.to_builtins(one) for one in found.objections],
        }
        sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    else:
        show_objections(found.name, found.objections)
        if made is not None:
            sys.stdout.write(shell_text(made))
    if refused:
        raise typer.Exit(FOUND_WRONG)
