"""``failsoft demo``: the whole of it on one machine; ``kill``, ``revive``, ``freeze`` and ``thaw`` act on its boxes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.demo.control import in_use, send
from gateway.demo.layout import LONGEST_SOCKET_PATH, Layout, default_root

app = typer.Typer(
    help="Show it all on this machine: two boxes, a stand-in hosted provider, the gateway, and a little traffic.",
    invoke_without_command=True,
    add_completion=False,
)


StateOption = Annotated[
    Path | None, typer.Option("--state", help="The demo's folder.", show_default="$XDG_STATE_HOME/failsoft/demo")
]
BoxArgument = Annotated[str, typer.Argument(metavar="BOX", help="For example box-a.")]


@app.callback()
def demo(
    context: typer.Context,
    engine: Annotated[
        Literal["sim", "vllm"], typer.Option(help="Simulated boxes, or real vLLM on this machine's CPU.")
    ] = "sim",
    port: Annotated[int, typer.Option(help="Where the gateway listens.", min=1, max=65535)] = 8080,
    rate: Annotated[float, typer.Option(help="Requests a second, over all customers.", min=0.1, max=50)] = 4.0,
    once: Annotated[int | None, typer.Option(help="End after so many answers; 1 if any failed.", min=1)] = None,
    state: StateOption = None,
) -> None:
    """Start the demo and show what happens, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    layout = _layout(state)
    # Imported late: the subcommands below are to be quick.
    from backend.made_once import MakingFailed
    from gateway.demo.ports import can_listen
    from gateway.demo.screen import Screen
    from gateway.demo.show import Demo, DemoFailed
    from gateway.demo.stage import Engine, MissingEngine, make_settings

    screen = Screen()
    if in_use(layout.control):
        screen.complaint(
            f"A demo is already running with its state in {layout.root}; end it, or give this one another --state."
        )
        raise typer.Exit(UNREACHABLE)
    if not can_listen(port):
        screen.complaint(f"Port {port} is taken by another program; choose one: failsoft demo --port, make run PORT=…")
        raise typer.Exit(UNREACHABLE)

    async def perform() -> bool:
        layout.make()
        settings = make_settings(Engine(engine), layout, port=port, requests_per_second=rate, once=once)
        return await Demo(settings, screen).run()

    try:
        content = asyncio.run(perform())
    except (DemoFailed, MissingEngine, MakingFailed, OSError) as error:
        screen.complaint(f"The demo cannot go on: {error}")
        raise typer.Exit(UNREACHABLE) from None
    if once is not None and not content:
        raise typer.Exit(FOUND_WRONG)


@app.command()
def kill(box: BoxArgument, state: StateOption = None) -> None:
    """End a box as a crash would, with SIGKILL."""
    _tell("kill", box, state)


@app.command()
def revive(box: BoxArgument, state: StateOption = None) -> None:
    """Start a box again, or thaw it."""
    _tell("revive", box, state)


@app.command()
def freeze(box: BoxArgument, state: StateOption = None) -> None:
    """Stop a box where it stands, with SIGSTOP: it accepts connections and never answers."""
    _tell("freeze", box, state)


@app.command()
def thaw(box: BoxArgument, state: StateOption = None) -> None:
    """Let a frozen box go on."""
    _tell("thaw", box, state)


def _layout(state: Path | None) -> Layout:
    layout = Layout((state or default_root()).absolute())
    if len(str(layout.control).encode()) > LONGEST_SOCKET_PATH:
        raise typer.BadParameter(f"the path is too long for a socket in it: {layout.root}", param_hint="--state")
    return layout


def _tell(verb: str, box: str, state: Path | None) -> None:
    layout = _layout(state)
    try:
        reply = send(layout.control, verb, box)
    except OSError as error:
        typer.echo(
            f"failsoft: no demo answers with its state in {layout.root} ({error}); start one: failsoft demo", err=True
        )
        raise typer.Exit(UNREACHABLE) from None
    typer.echo(reply.message, err=not reply.done)
    if not reply.done:
        raise typer.Exit(FOUND_WRONG)
