"""`failsoft backend sync`: what boxes have becomes what policies name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.errors import PolicyError, StoreError, StoreUnreachable
from gateway.policy.durations import parse_interval

if TYPE_CHECKING:
    from gateway.policy.store import PolicyStore


def sync(
    context: typer.Context,
    boxes: Annotated[
        list[str] | None, typer.Argument(metavar="[BOX]...", help="Boxes of fleet.yaml; all when left out.")
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", envvar="FAILSOFT_POLICIES", exists=True, file_okay=False, help="What a folder names."
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="FAILSOFT_REDIS", help="What the policy store's current version names."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until SIGINT or SIGTERM.")] = False,
    every: Annotated[str, typer.Option(metavar="TIME", help="How often --watch looks, such as 30s.")] = "30s",
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask adapters that were there before for a token, too.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Unload and load again what is there from another path; the box lacks it meanwhile."
        ),
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Also unload what no policy is known to have named.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print facts as JSON, with --watch a line each time.")
    ] = False,
) -> None:
    """Load what policies name and boxes lack, verify it, then unload what policies no longer name.

    An adapter that does not answer is unloaded again, and what it was to replace stays. Names that no earlier version
    in the store had are left alone; a folder has no earlier versions. Exits with 1 where something could not be made,
    with 3 where a box or the store could not be reached. Of FAILSOFT_REDIS and FAILSOFT_POLICIES the former counts.
    """
    # Store and fleet are loaded by whoever asks for this command, and by no other of the group.
    from gateway.cli.speech import failure
    from gateway.cli.sync_job import Job, Options

    try:
        every_s = parse_interval(every)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    source = _source(context, policies, redis)
    job = Job(boxes or [], source, Options(dry_run, verify, replace, prune, as_json))
    try:
        code = asyncio.run(job.watch(every_s) if watch else job.once())
    except StoreUnreachable as error:
        raise failure(str(error), UNREACHABLE) from None
    except PolicyError as error:
        said = "the policies do not hold together: see `failsoft policies validate`"
        raise failure(f"{said}\n{error}", FOUND_WRONG) from None
    except StoreError as error:
        raise failure(str(error), FOUND_WRONG) from None
    if code:
        raise typer.Exit(code)


def _source(context: typer.Context, policies: Path | None, redis: str | None) -> Path | PolicyStore:
    if policies is not None and redis is not None:
        typed = [
            name
            for name in ("policies", "redis")
            if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
        ]
        if len(typed) == 2:
            raise typer.BadParameter("give one of --policies and --redis", param_hint="--policies")
        if typed == ["policies"]:
            redis = None
    if redis is not None:
        from gateway.policy.store import PolicyStore

        try:
            return PolicyStore(redis)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--redis") from None
    if policies is None:
        raise typer.BadParameter("give --policies DIR or --redis URL", param_hint="--policies")
    return policies
