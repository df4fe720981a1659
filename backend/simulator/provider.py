"""``python -m backend.simulator.provider``: a stand-in for a hosted provider."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backend.simulator.command import MISUSE, UNREACHABLE
from backend.simulator.engine import Engine, Pace
from backend.simulator.faults import BadRule
from backend.simulator.hosted import Hosted, HostedAnthropic, HostedOpenAI
from backend.simulator.replies import BadReplies, Replies
from backend.simulator.serve import rules_from, run, tls_context
from backend.simulator.server import ServerSettings


class Speaks(StrEnum):
    """Whose API."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def simulate_provider(
    port: Annotated[int, typer.Option(help="Where it listens; 0 takes a free port.", min=0, max=65535)],
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    control_port: Annotated[
        int, typer.Option(help="A second port for /simulator/* alone, which no fault closes.", min=0, max=65535)
    ] = 0,
    name: Annotated[str, typer.Option(help="Its name in the line that says it is ready.")] = "provider",
    dialect: Annotated[Speaks, typer.Option(help="Whose API it speaks.")] = Speaks.OPENAI,
    api_key: Annotated[str | None, typer.Option(help="The only key that it takes; any, if not given.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it has (OpenAI); any, if none is given.")] = None,
    ttft_ms: Annotated[float, typer.Option(help="Time to first token.", min=0)] = 0.0,
    itl_ms: Annotated[float, typer.Option(help="Inter-token latency.", min=0)] = 0.0,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer that no limit cuts.", min=2)] = 16,
    max_in_flight: Annotated[int | None, typer.Option(help="Requests beyond which it says 429.", min=0)] = None,
    keep_alive_s: Annotated[float, typer.Option(help="Idle connections are closed after so long.", min=0)] = 60.0,
    journal: Annotated[int, typer.Option(help="So many requests are kept for /simulator/requests.", min=0)] = 10_000,
    seed: Annotated[int, typer.Option(help="For rules with a probability.")] = 0,
    replies: Annotated[
        Path | None, typer.Option(help="JSON lines: what is answered to which prompt (backend/simulator/replies.py).")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="A fault rule in JSON, from the start; repeatable.")] = None,
    certfile: Annotated[Path | None, typer.Option(help="Serve TLS with this PEM certificate.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, if it is in a file of its own.")] = None,
    exit_with_stdin: Annotated[bool, typer.Option(help="End when standard input ends.")] = False,
) -> None:
    """A hosted provider's generic model: numbered answers that begin with `generic:`, and faults on demand."""

    def app() -> Hosted:
        engine = Engine(
            base=name,
            adapters={},
            pace=Pace(ttft_ms / 1000, itl_ms / 1000, tokens),
            max_loras=0,
            max_queued=max_in_flight,
            clock=time.monotonic,
        )
        if dialect is Speaks.ANTHROPIC:
            return HostedAnthropic(engine, api_key=api_key)
        return HostedOpenAI(
            engine,
            api_key=api_key,
            models=tuple(model or ()),
            replies=Replies.read(replies) if replies is not None else None,
        )

    try:
        settings = ServerSettings(
            host=host,
            port=port,
            control_port=control_port,
            keep_alive_s=keep_alive_s,
            journal_capacity=journal,
            seed=seed,
            tls=tls_context(certfile, keyfile),
        )
        run(app, settings, name=name, rules=rules_from(fault or []), exit_with_stdin=exit_with_stdin)
    except (BadRule, BadReplies) as error:
        sys.stderr.write(f"provider: {error}\n")
        raise typer.Exit(MISUSE) from None
    except OSError as error:
        sys.stderr.write(f"provider: cannot serve on {host}:{port}: {error}\n")
        raise typer.Exit(UNREACHABLE) from None


if __name__ == "__main__":
    typer.run(simulate_provider)
