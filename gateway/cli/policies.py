"""`failsoft policies`: check policies, write them to the store, read them back."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from gateway.cli.admin_tokens import new_admin_token
from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.errors import PolicyError, StoreError, StoreUnreachable
from gateway.policy.compile import compile_policy
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import schema_text
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from gateway.policy.versions import Head, StoredVersion

app = typer.Typer(help="Check policies, apply them, look back at earlier versions.", no_args_is_help=True)
app.command("new-admin-token")(new_admin_token)

_Answer = TypeVar("_Answer")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with fleet.yaml, defaults.yaml and customers/.")]
RedisUrl = Annotated[str, typer.Option("--redis", envvar="FAILSOFT_REDIS", help="URL of the policy store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


@app.command()
def validate(directory: Folder, as_json: AsJson = False) -> None:
    """Check a folder, and name everything that is wrong with it. Exits with 1 where there is an error."""
    policy_set, diagnostics = _read(directory)
    notes = _notes(policy_set) if policy_set is not None else ()
    if as_json:
        _print_json(
            {
                "ok": policy_set is not None,
                "customers": len(policy_set.customers) if policy_set is not None else 0,
                "diagnostics": [msgspec.to_builtins(d) for d in diagnostics],
                "not_in_force": list(notes),
            }
        )
    else:
        _show_diagnostics(diagnostics)
        if policy_set is not None:
            for note in notes:
                _say(f"not in force in this release: {note}", style="yellow")
            _say(_extent(policy_set), style="green")
    if policy_set is None:
        raise typer.Exit(FOUND_WRONG)


@app.command()
def apply(
    directory: Folder,
    redis: RedisUrl,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    base: Annotated[int | None, typer.Option(min=1, help="Refuse unless this version is the current one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a folder to the store as one new version, or nothing. Exits with 1 where it is refused."""
    store = _store(redis)
    policy_set, diagnostics = _read(directory)
    if not as_json:
        _show_diagnostics(diagnostics)
    if policy_set is None:
        if as_json:
            _print_json({"ok": False, "diagnostics": [msgspec.to_builtins(d) for d in diagnostics]})
        _say("nothing was written", style="red")
        raise typer.Exit(FOUND_WRONG)
    _notes(policy_set)

    async def write() -> Head:
        try:
            return await store.apply(policy_set, note=note, author=_author(), base=base)
        finally:
            await store.close()

    head = _asking(write)
    if as_json:
        _print_json({"ok": True, **_head_facts(head), "diagnostics": [msgspec.to_builtins(d) for d in diagnostics]})
    else:
        _say(f"version {head.version} is current: {_extent(policy_set)}", style="green")


@app.command()
def show(
    redis: RedisUrl,
    version: Annotated[int | None, typer.Argument(metavar="[V]", min=1, help="The current one if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a version as it was written. Exits with 1 where there is none of that number."""
    store = _store(redis)

    async def read() -> tuple[Head | None, StoredVersion | None, dict[str, str]]:
        try:
            head = await store.head()
            if head is None or (version is not None and version > head.version):
                return head, None, {}
            number = head.version if version is None else version
            return head, await store.load(number), dict(await store.sources(number))
        finally:
            await store.close()

    head, stored, sources = _asking(read)
    if stored is None:
        missing = f"there is no version {version}; the current one is {head.version}" if head else "the store is empty"
        raise _failure(missing, FOUND_WRONG)
    if as_json:
        facts = _head_facts(stored.head) | {"created": stored.created_s, "note": stored.note, "author": stored.author}
        _print_json(facts | {"policies": json.loads(stored.document), "sources": sources})
        return
    created = datetime.fromtimestamp(stored.created_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"version {stored.head.version}, {created}", f"by {stored.author}" if stored.author else "", stored.note]
    _say(", ".join(line for line in lines if line), style="bold")
    for path, text in sorted(sources.items()):
        sys.stdout.write(f"# {path}\n{text.rstrip()}\n\n")


@app.command()
def schema(
    write: Annotated[Path | None, typer.Option(help="Write it to this file instead of printing it.")] = None,
) -> None:
    """Print the JSON schema of the YAML files, which editors check and complete by."""
    if write is None:
        sys.stdout.write(schema_text())
        return
    try:
        write.write_text(schema_text(), "utf-8")
    except OSError as error:
        raise _failure(f"{write} cannot be written: {error.strerror or error}", FOUND_WRONG) from None


def _read(folder: Path) -> tuple[PolicySet | None, Sequence[Diagnostic]]:
    try:
        found = read_folder(folder)
    except PolicyError as error:
        return None, [d for d in error.diagnostics if isinstance(d, Diagnostic)]
    return found, found.warnings


def _notes(policy_set: PolicySet) -> tuple[str, ...]:
    """Compiles, as what does not compile is not to be written. References stay unresolved."""
    compiled = compile_policy(policy_set, version=1, store_id="", created_s=0, env=None)
    return compiled.not_in_force


def _store(url: str) -> PolicyStore:
    try:
        return PolicyStore(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--redis") from None


def _asking(action: Callable[[], Coroutine[Any, Any, _Answer]]) -> _Answer:
    try:
        return asyncio.run(action())
    except StoreUnreachable as error:
        raise _failure(str(error), UNREACHABLE) from None
    except StoreError as error:
        raise _failure(str(error), FOUND_WRONG) from None


def _author() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return ""


def _extent(policy_set: PolicySet) -> str:
    boxes = sum(len(fleet.boxes) for fleet in policy_set.fleet.fleets.values())
    adapters = sum(len(customer.adapters) for customer in policy_set.customers)
    counts = (len(policy_set.customers), "customer", "s"), (adapters, "adapter", "s"), (boxes, "box", "es")
    return ", ".join(f"{count} {noun}{'' if count == 1 else ending}" for count, noun, ending in counts)


def _head_facts(head: Head) -> dict[str, object]:
    return {"version": head.version, "store_id": head.store_id, "digest": head.digest}


def _print_json(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _say(message: str, *, style: str = "") -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(message, style=style))


def _show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """On stderr, in the form that editors and terminals turn into links."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for found in diagnostics:
        line = Text(f"{found.place}: ", style="bold")
        line.append(found.severity, style="red" if found.severity == "error" else "yellow")
        line.append(f": {found.key}: {found.message}" if found.key else f": {found.message}", style="none")
        if found.hint:
            line.append(f" ({found.hint})", style="cyan")
        console.print(line)
    errors = sum(d.severity == "error" for d in diagnostics)
    if errors:
        console.print(Text(f"{errors} error{'s' if errors > 1 else ''}", style="red"))


def _failure(message: str, code: int) -> typer.Exit:
    _say(f"failsoft: {message}", style="red")
    return typer.Exit(code)
