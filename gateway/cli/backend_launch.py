"""`failsoft backend launch`: start a box's vLLM here, and keep it alive."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.box_process import BoxProcess
from backend.first_token import FirstToken, seen_from_here
from backend.installed_vllm import InstalledVllm, NoVllm, find_vllm
from backend.log_file import LogFile
from backend.objections import Objection, has_errors
from backend.port import port_is_free
from backend.serve_plan import API_KEY, ServePlan, VllmCommand, by_interpreter, by_program, resolved, unresolved
from backend.supervisor import Patience, Supervisor
from backend.vllm_flags import Release, release
from gateway.cli.backend_box import DEFAULT_POLICIES, BoxName, Policies, find_box, show_objections
from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.cli.launch_screen import Screen
from gateway.cli.serve import default_state_dir
from gateway.policy.lora_resolvers import turns_on


def launch(
    box: BoxName,
    policies: Policies = DEFAULT_POLICIES,
    python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The interpreter of the environment that vLLM is installed in.")
    ] = None,
    vllm: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The vllm program, if not the one on the path.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What vLLM prints [$XDG_STATE_HOME/failsoft/backend/BOX.log].")
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(min=0, help="Starts after crashes that follow one another; ten minutes of service clear them."),
    ] = 3,
    start_within: Annotated[
        float, typer.Option(min=1, metavar="S", help="Seconds that the first token may take.")
    ] = 900,
) -> None:
    """Start BOX as fleet.yaml has it and keep it alive, until a signal comes.

    It has started when the base model has answered with a token. SIGTERM lets running requests end within
    engine.drain; a second one kills. What never came up is not started again. Exits with 0 after a signal, with 1 where
    the box is refused or no start is left, with 3 where there is no vLLM.
    """
    if python is not None and vllm is not None:
        raise typer.BadParameter("give --python or --vllm, not both", param_hint="--vllm")
    try:
        installed = find_vllm(python, vllm)
        of = release(installed.version)
    except (NoVllm, ValueError) as error:
        sys.stderr.write(f"failsoft: {error}\n")
        raise typer.Exit(UNREACHABLE) from None
    found = find_box(box, policies, of, here=True)
    plan = found.plan
    objections = [*found.objections, *(_here(plan) if plan is not None else ())]
    show_objections(found.name, objections)
    if plan is None or has_errors(objections):
        raise typer.Exit(FOUND_WRONG)
    command = _command(installed, plan, of)
    file = LogFile(log or default_state_dir() / "backend" / f"{box}.log")
    url = found.url if found.url.startswith("https:") else seen_from_here(plan.host, plan.port)
    screen = Screen(box, Console(highlight=False, emoji=False, soft_wrap=True))
    screen.say(f"vLLM {installed.version} on {plan.host}:{plan.port}, log {file.path}")
    try:
        in_order = asyncio.run(_supervise(box, command, plan, file, url, restarts, start_within, screen))
    except OSError as error:
        screen.close()
        screen.say(f"cannot be started: {error}", "red")
        raise typer.Exit(FOUND_WRONG) from None
    finally:
        screen.close()
    if not in_order:
        screen.say(f"is not started again; the whole log is {file.path}", "red")
        raise typer.Exit(FOUND_WRONG)


async def _supervise(
    box: str,
    command: VllmCommand,
    plan: ServePlan,
    file: LogFile,
    url: str,
    restarts: int,
    start_within: float,
    screen: Screen,
) -> bool:
    supervisor = Supervisor(
        BoxProcess(box, command, log=file.path),
        file,
        FirstToken(url, plan.served_name, command.environment[API_KEY] or None),
        adapters=len(plan.adapters),
        restarts=restarts,
        patience=Patience(start_within, plan.drain_s),
        tell=screen.tell,
    )
    return await supervisor.run()


def _command(installed: InstalledVllm, plan: ServePlan, of: Release) -> VllmCommand:
    made = (by_interpreter if installed.by_interpreter else by_program)(installed.path, plan, of)
    # The log is read as it grows, so nothing may stay in a buffer. A key of our own environment is not the box's.
    ours = {"PYTHONUNBUFFERED": "1", API_KEY: ""}
    return replace(made, environment=ours | resolved(made.environment, os.environ))


def _here(plan: ServePlan) -> Iterator[Objection]:
    """What only the machine that is to run it can tell."""
    references = dict(plan.options.env) | ({API_KEY: plan.api_key} if plan.api_key is not None else {})
    for name in unresolved(references, os.environ):
        yield Objection(f"${{{name}}}", "is not set", "export it before this command")
    for name in sorted(name for name, value in os.environ.items() if turns_on(name, value)):
        yield Objection(
            name,
            "is set here and turns on a LoRA resolver, which loads what any request names: the box does not get it",
            "unset it",
            "warning",
        )
    if plan.model.startswith("/") and not Path(plan.model).is_dir():
        yield Objection("model_path", f"is {plan.model}, which is no folder here", "start the box where the model is")
    if not port_is_free(plan.host, plan.port):
        yield Objection(
            f"{plan.host}:{plan.port}",
            "cannot be listened on: another process does, or this machine has not got the address",
            "`ss -ltnp` shows who does; engine.listen: 0.0.0.0 listens on every address",
        )
