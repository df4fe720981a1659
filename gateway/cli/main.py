"""The ``failsoft`` command: which subcommands there are, and how a failure is told.

A subcommand lives in a module of its own, as a function of the module's name or as a ``typer.Typer`` named ``app``.
Only the module of the subcommand that was asked for is imported, so that ``failsoft --help`` and small commands do
not wait for what ``serve`` needs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.errors import FailsoftError, StoreUnreachable, UpstreamError

SUBCOMMANDS: Final = {
    "serve": ("gateway.cli.serve", "Serve clients: the gateway itself."),
    "demo": ("gateway.cli.demo", "Show it all on this machine: two boxes, a provider, the gateway, traffic."),
    "policies": ("gateway.cli.policies", "Check policies, apply them, look back at earlier versions."),
    "status": ("gateway.cli.status", "What a running gateway knows: policy version, boxes, alarms."),
    "drain": ("gateway.cli.drain", "Send nothing new to a box, for maintenance; what runs there goes on."),
    "undrain": ("gateway.cli.undrain", "Let a drained box take traffic again."),
    "degrade": ("gateway.cli.degrade", "Have a customer, or all, answered by the fallback for a while."),
    "restore": ("gateway.cli.restore", "End what degrade began."),
    "drill": ("gateway.cli.drill", "Find out now whether a customer's fallback works."),
    "usage": ("gateway.cli.usage", "What customers have used: requests, tokens, USD, by who answered and why."),
    "audit": ("gateway.cli.audit", "Who changed what on the gateways, from where and when."),
    "explain": ("gateway.cli.explain", "The plan a running gateway would make for a request now, and why."),
    "backend": ("gateway.cli.backend", "vLLM boxes: how they are started, whether their adapters are sound."),
    "eval": ("gateway.cli.eval", "Whether two serving paths give the same tool calls, customer by customer."),
    "plan": ("gateway.cli.plan", "How many boxes and slots a traffic needs, what they give and cost, and what if."),
    "load": ("gateway.cli.load", "Load-test a gateway: open loop, by customer, and compare runs."),
    "simulate-box": ("gateway.cli.simulate_box", "A vLLM box without a GPU."),
}


COLLECT_EVERY: Final = 50_000
"""New objects between two looks of the cycle collector. What is imported stays: by the default of 700 a tenth to a
fifth of the time that a command takes to start goes into looking through it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Raises SystemExit with one of :mod:`gateway.cli.exit_codes`."""
    if arguments is None:
        # The process is ours alone. What `serve` and `load` need of the collector later on they set themselves.
        gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        _command_line(asked)(arguments, prog_name="failsoft")
    except FailsoftError as error:
        # The caller asked for something that did not work out; where in our code that came to light is not its concern.
        sys.stderr.write(f"failsoft: {error}\n")
        raise SystemExit(exit_code(error)) from None


def exit_code(error: FailsoftError) -> int:
    """What a failure means to a script that runs us."""
    return UNREACHABLE if isinstance(error, StoreUnreachable | UpstreamError) else FOUND_WRONG


def _command_line(asked: str | None) -> typer.Typer:
    app = typer.Typer(
        help="One OpenAI endpoint for a fine-tuned adapter per customer that never goes dark.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, (module_name, purpose) in SUBCOMMANDS.items():
        if name != asked:
            app.command(name, help=purpose)(_not_asked_for)
            continue
        module = import_module(module_name)
        if isinstance(group := getattr(module, "app", None), typer.Typer):
            app.add_typer(group, name=name, short_help=purpose)
        else:
            app.command(name)(getattr(module, module_name.rpartition(".")[2]))
    return app


def _not_asked_for() -> None:
    """Stands in the list of ``failsoft --help`` for a subcommand whose module is not loaded."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"failsoft {_version()}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the command as a whole; they act through their own callbacks."""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("failsoft")
    except PackageNotFoundError:
        return "(not installed)"
