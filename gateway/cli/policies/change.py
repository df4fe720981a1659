"""`failsoft policies diff`, `apply` and `rollback`: what changes what gateways do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.status import Status
from rich.text import Text

from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.policies.check import prove_compiles
from gateway.cli.policies.lines import line_difference, show_changes, show_lines
from gateway.cli.policies.past import find
from gateway.cli.policies.terms import (
    AsJson,
    Folder,
    RedisUrl,
    asking,
    author,
    diagnostics_of,
    extent,
    head_facts,
    policy_store,
    print_json,
    read,
    show_diagnostics,
)
from gateway.cli.speech import failure, said_on, say
from gateway.clock import today_utc
from gateway.errors import PolicyError
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.difference import difference
from gateway.policy.policy_set import PolicySet, policy_set_from_document
from gateway.policy.rollout import Rollout, until_in_force
from gateway.policy.standing import Replica
from gateway.policy.versions import Head

if TYPE_CHECKING:
    from gateway.policy.store import PolicyStore

TIMEOUT_S = 10.0
"""A gateway that falls silent is waited for five seconds, so that it is not what the wait ends on."""

SILENT_HELP = (
    "Look whether a silent gateway runs and reaches the store: it follows as soon as the store hears it again. "
    "If it has ended, --forget-silent leaves it out; by itself it is left out after 15 minutes."
)

Base = Annotated[int | None, typer.Option(min=1, help="Refuse unless this version is the current one.")]
Timeout = Annotated[float, typer.Option(min=0.0, help="Seconds to wait until every live gateway has the version.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the gateways.")]
ForgetSilent = Annotated[
    bool, typer.Option("--forget-silent", help="Take gateways that the store does not hear for ended.")
]


def diff(
    directory: Folder,
    redis: RedisUrl,
    words: Annotated[bool, typer.Option("--words", help="Only what changes for whom, without the lines.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a folder would change for whom, beside the current version, in words and as lines.

    Exits with 0 where nothing would change for anybody, with 1 where something would, or where the folder has errors.
    """
    policy_set = _checked(directory, as_json=as_json, otherwise="nothing was compared")

    async def current(store: PolicyStore) -> tuple[Head | None, PolicySet | None, Mapping[str, str]]:
        if (head := await store.head()) is None:
            return None, None, {}
        stored = await store.load(head.version)
        return head, policy_set_from_document(stored.document), await store.sources(head.version)

    try:
        head, before, sources = asking(redis, current)
    except PolicyError as error:
        raise failure(f"the store's current version cannot be read: {error}", FOUND_WRONG) from None
    changes = difference(before, policy_set, today=today_utc())
    lines = line_difference(sources, policy_set.sources)
    if as_json:
        said = [{"kind": one.kind, "name": one.name, "change": one.words} for one in changes]
        beside = None if head is None else head_facts(head)
        print_json({"ok": True, "against": beside, "changes": said, "lines": "\n".join(lines)})
    else:
        against = "an empty store" if head is None else f"version {head.version}"
        show_changes(changes, against, only_text=bool(lines))
        if not words:
            show_lines(lines)
    if changes:
        raise typer.Exit(FOUND_WRONG)


def apply(
    directory: Folder,
    redis: RedisUrl,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    base: Base = None,
    no_wait: NoWait = False,
    timeout: Timeout = TIMEOUT_S,
    forget_silent: ForgetSilent = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder to the store as one new version, or nothing, and wait until every live gateway has it.

    Exits with 1 where it is refused, or where a gateway does not take it or is silent: one that was not heard of for
    five seconds and did not say that it ends may be alive, and serve by an older version. It is named for 15 minutes.
    """
    policy_set = _checked(directory, as_json=as_json, otherwise="nothing was written")
    # To deflate 20 MB takes as long as half a compilation, and needs no interpreter meanwhile.
    deflating = threading.Thread(target=lambda: policy_set.deflated)
    deflating.start()
    prove_compiles(policy_set)
    deflating.join()

    async def write(store: PolicyStore) -> Head:
        return await store.apply(policy_set, note=note, author=author(), base=base)

    head = asking(redis, write)
    if not as_json:
        say(f"version {head.version} is current: {extent(policy_set)}", style="green")
    if forget_silent:
        _forget_silent(redis)
    _wait(redis, head, 0.0 if no_wait else timeout, look=not no_wait, as_json=as_json, warnings=policy_set.warnings)


def rollback(
    version: Annotated[int, typer.Argument(metavar="V", min=1, help="The version whose content is to hold again.")],
    redis: RedisUrl,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    base: Base = None,
    no_wait: NoWait = False,
    timeout: Timeout = TIMEOUT_S,
    forget_silent: ForgetSilent = False,
    as_json: AsJson = False,
) -> None:
    """Write an earlier version's content as a new version, and wait until every live gateway has it.

    Numbers only grow: a gateway never goes back to an older one. Exits with 1 as `apply` does.
    """

    async def write(store: PolicyStore) -> tuple[Head, PolicySet]:
        stored = await find(store, version)
        found = policy_set_from_document(stored.document)
        policy_set = PolicySet(found.fleet, found.defaults, found.customers, await store.sources(version))
        prove_compiles(policy_set)
        why = f"rollback to {version}" + (f": {note}" if note else "")
        return await store.apply(policy_set, note=why, author=author(), base=base), policy_set

    try:
        head, policy_set = asking(redis, write)
    except PolicyError as error:
        if not as_json:
            show_diagnostics(diagnostics_of(error))
        message = f"version {version} cannot be used by this release; nothing was written"
        raise failure(message, FOUND_WRONG) from None
    if not as_json:
        say(f"version {head.version} is current, with the content of {version}: {extent(policy_set)}", style="green")
    if forget_silent:
        _forget_silent(redis)
    _wait(redis, head, 0.0 if no_wait else timeout, look=not no_wait, as_json=as_json, warnings=())


def _checked(directory: Folder, *, as_json: bool, otherwise: str) -> PolicySet:
    policy_set, diagnostics = read(directory, meanwhile=policy_store)
    if not as_json:
        show_diagnostics(diagnostics)
    if policy_set is None:
        if as_json:
            print_json({"ok": False, "diagnostics": [msgspec.to_builtins(d) for d in diagnostics]})
        say(otherwise, style="red")
        raise typer.Exit(FOUND_WRONG)
    return policy_set


def _forget_silent(redis: str) -> None:
    async def forget(store: PolicyStore) -> list[Replica]:
        silent = [replica for replica in await store.replicas() if replica.is_silent]
        if silent:
            await store.forget(*(replica.id for replica in silent))
        return silent

    for replica in asking(redis, forget):
        say(f"{replica.name} {replica.last_heard}, and is forgotten", style="yellow")


def _wait(
    redis: str, head: Head, timeout_s: float, *, look: bool, as_json: bool, warnings: Sequence[Diagnostic]
) -> None:
    """Tell how far ``head`` has come, at the end of the wait. Raises typer.Exit where not every gateway has it."""
    began = time.monotonic()
    try:
        found = _look(redis, head, timeout_s, shown=not as_json) if look else None
    except typer.Exit:
        if as_json:
            print_json({"ok": False, **head_facts(head), "gateways": None})
        raise
    took_s = time.monotonic() - began
    if as_json:
        facts: dict[str, Any] = {"ok": found is None or found.complete, **head_facts(head)}
        facts["diagnostics"] = [msgspec.to_builtins(d) for d in warnings]
        if found is not None:
            without = [
                {"name": replica.name, "why": why, "silent_s": round(replica.silent_s, 1)}
                for replica, why in found.without()
            ]
            facts["gateways"] = {"in_force": [replica.name for replica in found.took], "not_in_force": without}
        print_json(facts)
    elif found is not None:
        _tell(found, head, took_s)
    if found is not None and not found.complete:
        raise typer.Exit(FOUND_WRONG)


def _look(redis: str, head: Head, timeout_s: float, *, shown: bool) -> Rollout:
    console = said_on()

    def waiting(until: Callable[[Rollout], None]) -> Callable[[PolicyStore], Coroutine[Any, Any, Rollout]]:
        return lambda store: until_in_force(store, head, timeout_s=timeout_s, on_look=until)

    try:
        if not (shown and console.is_terminal):
            return asking(redis, waiting(lambda found: None))
        with console.status("waiting for the gateways") as status:
            return asking(redis, waiting(lambda found: _progress(status, found)))
    except typer.Exit as failed:
        say(f"version {head.version} is written; which gateways have it is not known", style="red")
        raise typer.Exit(failed.exit_code) from None


def _progress(status: Status, found: Rollout) -> None:
    missing = ", ".join(replica.name for replica in found.waiting[:3])
    status.update(Text(f"{len(found.took)} of {found.alive} gateways have it; waiting for {missing}"))


def _tell(found: Rollout, head: Head, took_s: float) -> None:
    if not found.alive and not found.silent:
        say("no gateway says that it lives on this store", style="yellow")
    elif found.complete:
        gateways = "the one live gateway" if found.alive == 1 else f"all {found.alive} live gateways"
        say(f"in force at {gateways} after {took_s:.1f} s", style="green")
    else:
        live = f"{found.alive} live gateway{'' if found.alive == 1 else 's'}"
        took = live if len(found.took) == found.alive else f"{len(found.took)} of {live}"
        count = len(found.silent)
        silent = f", and {count} {'is' if count == 1 else 'are'} silent" if count else ""
        say(f"version {head.version} is in force at {took}{silent}", style="red")
        for replica, why in found.without():
            say(f"  {replica.name} {why}", style="red")
        if found.silent:
            say(SILENT_HELP)
