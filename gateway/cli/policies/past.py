"""`failsoft policies history` and `show`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.policies.terms import AsJson, RedisUrl, asking, head_facts, print_json, when
from gateway.cli.speech import failure, say
from gateway.policy.versions import Head, StoredVersion

if TYPE_CHECKING:
    from gateway.policy.store import Meta, PolicyStore

UNBOUNDED = 10_000
"""Columns."""


def history(
    redis: RedisUrl,
    limit: Annotated[int, typer.Option(min=1, help="At most so many versions.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest versions, newest first: when, by whom, and why. The first one is in force.

    The store keeps what is known of every version, and the content of the newest 50: others are marked as pruned.
    """

    async def read(store: PolicyStore) -> list[Meta]:
        return await store.history(limit)

    found = asking(redis, read)
    if as_json:
        print_json({"versions": [msgspec.to_builtins(meta) for meta in found]})
        return
    if not found:
        say("the store holds no version yet: failsoft policies apply DIR")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "when", "who", "customers", "digest", "note"):
        table.add_column(heading, no_wrap=heading != "note")
    for meta in found:
        customers = "–" if meta.customers is None else str(meta.customers)
        row = (str(meta.version), when(meta.created), meta.author or "–", customers, meta.digest[:12])
        note = " ".join(word for word in ("(pruned)" if meta.pruned else "", meta.note) if word)
        table.add_row(*(Text(cell) for cell in (*row, note)))
    # Into a pipe all of it goes: a width is for people at a terminal.
    console = Console(emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(emoji=False, highlight=False, width=UNBOUNDED)
    console.print(table)


def show(
    redis: RedisUrl,
    version: Annotated[int | None, typer.Argument(metavar="[V]", min=1, help="The current one if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a version as it was written. Exits with 1 where there is none of that number."""

    async def read(store: PolicyStore) -> tuple[StoredVersion, dict[str, str]]:
        stored = await find(store, version)
        return stored, dict(await store.sources(stored.head.version))

    stored, sources = asking(redis, read)
    if as_json:
        facts = head_facts(stored.head) | {"created": stored.created_s, "note": stored.note, "author": stored.author}
        print_json(facts | {"policies": json.loads(stored.document), "sources": sources})
        return
    by = f"by {stored.author}" if stored.author else ""
    lines = [f"version {stored.head.version}, {when(stored.created_s)}", by, stored.note]
    say(", ".join(line for line in lines if line), style="bold")
    for path, text in sorted(sources.items()):
        sys.stdout.write(f"# {path}\n{text.rstrip()}\n\n")


async def find(store: PolicyStore, version: int | None) -> StoredVersion:
    """That version, or the current one. Raises typer.Exit where there is none, StoreError."""
    head: Head | None = await store.head()
    if head is None or (version is not None and version > head.version):
        missing = f"there is no version {version}; the current one is {head.version}" if head else "the store is empty"
        raise failure(missing, FOUND_WRONG)
    return await store.load(head.version if version is None else version)
