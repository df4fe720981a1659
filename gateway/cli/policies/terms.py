"""What the subcommands of `failsoft policies` have in common: options, the way to the store, how they speak."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.text import Text

from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.cli.local_user import local_user
from gateway.cli.policies.annotations import in_github
from gateway.cli.speech import failure, said_on
from gateway.errors import PolicyError, StoreError, StoreUnreachable
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.policy_set import PolicySet
from gateway.policy.read_ahead import read_ahead
from gateway.policy.uncollected import uncollected
from gateway.policy.validate import read_folder
from gateway.policy.versions import Head

if TYPE_CHECKING:
    from gateway.policy.store import PolicyStore

Answer = TypeVar("Answer")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with fleet.yaml, defaults.yaml and customers/.")]
RedisUrl = Annotated[str, typer.Option("--redis", envvar="FAILSOFT_REDIS", help="URL of the policy store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


def policy_store() -> type[PolicyStore]:
    """What asks the store. To load the client of Redis takes a fifth of the time in which a command starts, and whoever
    only looks at a folder needs none.
    """
    from gateway.policy.store import PolicyStore

    return PolicyStore


def asking(url: str, action: Callable[[PolicyStore], Coroutine[Any, Any, Answer]]) -> Answer:
    """What ``action`` finds in the store at ``url``. Raises typer.Exit with a line about what failed."""
    try:
        store = policy_store()(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--redis") from None

    async def act() -> Answer:
        try:
            return await action(store)
        finally:
            await store.close()

    try:
        return asyncio.run(act())
    except StoreUnreachable as error:
        raise failure(str(error), UNREACHABLE) from None
    except StoreError as error:
        raise failure(str(error), FOUND_WRONG) from None


def read(
    folder: Path, *, meanwhile: Callable[[], object] = lambda: None
) -> tuple[PolicySet | None, Sequence[Diagnostic]]:
    """The policies of ``folder``, or None, and all that is to be said about them.

    ``meanwhile``: what is to be done besides, while other processes read, if there are any.
    """
    try:
        with uncollected():
            found = read_folder(folder, ahead=partial(read_ahead, meanwhile=meanwhile, keep=_beside))
    except PolicyError as error:
        return None, diagnostics_of(error)
    return found, found.warnings


def _beside(action: Callable[[], None]) -> None:
    """Do it in a thread. The process does not end before it has been done."""
    threading.Thread(target=action, name="beside").start()


def diagnostics_of(error: PolicyError) -> list[Diagnostic]:
    """Everything that is wrong."""
    return [found for found in error.diagnostics if isinstance(found, Diagnostic)]


def author() -> str:
    """Who runs the command, as far as this machine knows: in GitHub Actions whoever caused the run."""
    if in_github(os.environ) and (actor := os.environ.get("GITHUB_ACTOR")):
        return actor
    return local_user()


def extent(policy_set: PolicySet) -> str:
    """``2 customers, 3 adapters, 2 boxes``"""
    boxes = sum(len(fleet.boxes) for fleet in policy_set.fleet.fleets.values())
    adapters, customers = policy_set.adapters, len(policy_set.customers)
    counts = (customers, "customer", "s"), (adapters, "adapter", "s"), (boxes, "box", "es")
    return ", ".join(f"{count} {noun}{'' if count == 1 else ending}" for count, noun, ending in counts)


def head_facts(head: Head) -> dict[str, object]:
    """Which version, for machines."""
    return {"version": head.version, "store_id": head.store_id, "digest": head.digest}


def when(created_s: int) -> str:
    """A version's time, for people."""
    return datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_json(facts: Any) -> None:
    """On stdout."""
    sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """On stderr, in the form that editors and terminals turn into links."""
    console = said_on()
    for found in diagnostics:
        wrong = "red" if found.severity == "error" else "yellow"
        line = Text(f"{found.place}: ", style="bold")
        line.append(found.severity, style=f"bold {wrong}")
        line.append(": ", style="none")
        if found.key:
            line.append(found.key, style="magenta").append(": ", style="none")
        line.append(found.message, style="none")
        if found.hint:
            line.append(f" ({found.hint})", style="cyan")
        console.print(line)
    counts = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for severity in ("error", "warning")
        if (count := sum(found.severity == severity for found in diagnostics))
    ]
    if counts and counts[0].endswith(("error", "errors")):
        console.print(Text(", ".join(counts), style="red"))
