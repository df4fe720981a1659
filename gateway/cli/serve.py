"""`failsoft serve`: the gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.observe.log import LogFormat, configure_logging

log = logging.getLogger("failsoft")


def serve(
    policies: Annotated[
        Path | None,
        typer.Option(
            help="Folder of policies. Without --redis it is followed; with it, it seeds a store never filled."
        ),
    ] = None,
    redis: Annotated[
        str | None, typer.Option(envvar="FAILSOFT_REDIS", help="URL of the policy store; without it, one is started.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the snapshot and the embedded store [$XDG_STATE_HOME/failsoft].")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    admin_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /admin, /metrics and /ops here instead.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that answer clients; more than one have a watcher.")
    ] = 1,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that running answers have after SIGTERM.")] = 30.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="FAILSOFT_CORS_ORIGINS",
            help="Let web pages of this origin ask /v1, such as https://chat.example.com; may be repeated [none].",
        ),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Log lines for people or for machines.")] = "human",
) -> None:
    """Serve clients on one OpenAI endpoint. The admin API's token is read from FAILSOFT_ADMIN_TOKEN."""
    if policies is None and redis is None:
        raise typer.BadParameter("give --policies DIR, --redis URL, or both", param_hint="--policies")
    # Imported here: `failsoft serve --help` and its mistakes need none of it.
    import uvloop

    from gateway.app import Gateway
    from gateway.dataplane.cross_origin import not_an_origin
    from gateway.policy.redis_address import address_of
    from gateway.settings import Settings

    if redis is not None:
        try:
            address_of(redis)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--redis") from None

    for origin in cors_origin or ():
        if not_an_origin(origin):
            raise typer.BadParameter(
                f"{origin!r} is no origin: scheme, host and port only, as in https://chat.example.com",
                param_hint="--cors-origin",
            )

    configure_logging(log_format)
    settings = Settings(
        policies=policies,
        redis_url=redis,
        state_dir=state or default_state_dir(),
        host=host,
        port=port,
        admin_port=admin_port,
        admin_token=os.environ.get("FAILSOFT_ADMIN_TOKEN") or None,
        workers=workers,
        drain_s=drain,
        log_format=log_format,
        cors_origins=tuple(cors_origin or ()),
    )

    async def run() -> None:
        await Gateway(settings).run(ready)

    def ready(address: str) -> None:
        log.info("listening on %s", address)
        sys.stdout.write(f"failsoft listens on {address}\n")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/failsoft`, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "failsoft"
