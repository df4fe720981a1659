"""`failsoft status`: what a running gateway knows, on one screen."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.alias_lines import split_lines
from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.limits_shown import in_words
from gateway.cli.order_line import order_line
from gateway.cli.proofs_table import proofs_table
from gateway.cli.score_line import score_line
from gateway.cli.silent_gateways import last_heard
from gateway.cli.sync_lines import sync_lines
from gateway.cli.whole_table import print_whole
from gateway.observe.actor import Actor

_STYLES = {"closed": "green", "half_open": "yellow", "open": "red", "unavailable": "red"}
_WORDS = {"closed": "serving", "half_open": "on trial", "open": "circuit open", "unavailable": "not configured"}
_MOST_NAMES = 10
"""Of the adapters of a box; the JSON has all."""


def status(
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the gateway says as JSON.")] = False,
) -> None:
    """Show policy version, boxes, the adapters that live there, and alarms.

    The admin token is read from FAILSOFT_ADMIN_TOKEN. Exits with 1 where something needs a look: not ready, an alarm, a
    box that does not serve, a gateway that the store does not hear; with 3 where no gateway answers.
    """
    found = AdminClient(url).get("/admin/status")
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _show(found, Console(emoji=False))
    if needs_a_look(found):
        raise typer.Exit(FOUND_WRONG)


def needs_a_look(found: dict[str, Any]) -> bool:
    """Whether a person has to act or wait: not ready, an alarm, a gateway that the store does not hear, or a box that
    does not serve, drained ones too."""
    return (
        not found["ready"]
        or bool(found["alarms"])
        or bool(found["replicas"]["silent"])
        or any(box["state"] != "closed" or box["drained"] for box in found["boxes"])
    )


def _show(found: dict[str, Any], console: Console) -> None:
    policy, requests = found["policy"], found["requests"]
    if policy is None:
        console.print("[red]no policy version yet[/]")
    else:
        console.print(
            f"policy version [bold]{policy['version']}[/] from {escape(policy['source'])}, "
            f"{policy['customers']} customer{'' if policy['customers'] == 1 else 's'}; up {found['uptime_s']:.0f} s"
        )
    console.print(
        f"{requests['answered']} answers, {requests['degraded']} of them degraded{_reasons(requests)}; "
        f"{requests['errors']} errors"
    )
    for line in (_workers(found["workers"]), _replicas(found)):
        if line:
            console.print(line)
    for one in found["replicas"]["silent"]:
        console.print(f"[red]silent[/] {escape(last_heard(one))}, and may still serve by it")
    table = Table(
        "box", "fleet", "state", "in flight / limit", "waiting", "first token", "last probe", "adapters", "last error"
    )
    for box in found["boxes"]:
        probe = box["last_probe"]
        trouble = box["unavailable"] or (box["last_error"] if box["state"] != "closed" else "")
        table.add_row(
            escape(box["name"]),
            escape(box["fleet"]),
            _state(box),
            f"{box['in_flight']} / {box['concurrency_limit']}",
            _waiting(box["waiting"]),
            "–" if (ttft_s := box["ttft_estimate_s"]) is None else f"{ttft_s:.2f} s",
            "–" if probe is None else f"{probe['outcome']}, {probe['took_ms']:.0f} ms",
            escape(_adapters(box)) or "–",
            escape(trouble) or "–",
        )
    print_whole(console, table)
    for line in sync_lines(found["adapter_sync"]):
        console.print(line)
    for line in split_lines(found["aliases"]):
        console.print(line)
    for fleet in found["fleets"]:
        console.print(_placement(fleet))
    if found["boxes"]:
        print_whole(console, _homes(found["boxes"]))
    if found["drills"]["steps"]:
        print_whole(console, proofs_table(found["drills"]))
    for one in found["scores"][:_MOST_NAMES]:
        console.print(f"score of {escape(score_line(one))}")
    for order in found["orders"]:
        console.print(f"[yellow]by order[/] {escape(order_line(order))}")
    for one in (found.get("limits") or {"customers": []})["customers"][:_MOST_NAMES]:
        console.print(f"limits of {escape(one['customer'])}: {in_words(one)}")
    for alarm in found["alarms"]:
        console.print(f"[red]alarm[/] {escape(alarm['kind'])}: {escape(alarm['message'])}")
    for line in policy["warnings"] if policy else ():
        console.print(f"[yellow]note[/] {escape(line)}")


def _workers(workers: list[dict[str, Any]]) -> str:
    """Each process that answers clients, where there are several."""
    if len(workers) < 2:
        return ""
    each = ", ".join(
        f"pid {worker['pid']} {worker['in_flight']} in flight" if worker["ready"] else "[red]one is away[/]"
        for worker in workers
    )
    return f"{sum(worker['ready'] for worker in workers)} of {len(workers)} workers: {each}"


def _replicas(found: dict[str, Any]) -> str:
    alive = found["replicas"]["alive"]
    if alive < 2:
        return ""
    shares = ", ".join(
        f"{escape(box['name'])} {box['slots']['of']} of {box['slots']['max_loras']}" for box in found["boxes"]
    )
    versions = ", ".join(
        f"{escape(gateway['name'])} {'–' if (version := gateway['policy_version']) is None else version}"
        for gateway in found["replicas"]["gateways"]
    )
    return (
        f"one of {alive} gateways on this store; LoRA slots that it counts on: {shares or '–'}\n"
        f"policy versions: {versions or '–'}"
    )


def _state(box: dict[str, Any]) -> str:
    said = f"[{_STYLES.get(box['state'], 'yellow')}]{_WORDS.get(box['state'], box['state'])}[/]"
    if box["drained"]:
        # What an operator did comes before how the box is.
        by = f" by {escape(line)}" if (line := Actor(box["drained_by"], box["drained_user"]).line) else ""
        return f"[yellow]drained[/]{by}" if box["state"] == "closed" else f"[yellow]drained[/]{by}, {said}"
    return f"{said}, in its ramp" if box["in_ramp"] else said


def _waiting(waiting: dict[str, float | None]) -> str:
    """In the box's engine, as it says: for capacity, and for a LoRA slot."""
    capacity, deferred = waiting["capacity"], waiting["deferred"]
    if capacity is None and deferred is None:
        return "–"
    return f"{capacity or 0:.0f}" + (f", {deferred:.0f} for a slot" if deferred else "")


def _placement(fleet: dict[str, Any]) -> str:
    begin = f"fleet [bold]{escape(fleet['name'])}[/]: adapters have homes"
    if fleet["placed_by"] == "rendezvous":
        seen, needed = fleet["requests_seen"], fleet["requests_needed"]
        return f"{begin} by rendezvous hashing, until {needed} requests were seen (now {seen})"
    return (
        f"{begin} by measured rates, worked out {fleet['placed_s_ago']:.0f} s ago: "
        f"{fleet['requests_per_s']:.2f} requests and {fleet['predicted_swaps_per_s']:.2f} predicted swaps a second"
    )


def _homes(boxes: list[dict[str, Any]]) -> Table:
    table = Table("box", "slots held", "home of, with requests a second (● in a slot)")
    for box in boxes:
        slots, there = box["slots"], box["home_of"]
        names = [_inhabitant(one) for one in there[:_MOST_NAMES]]
        more = f" and {len(there) - _MOST_NAMES} more" if len(there) > _MOST_NAMES else ""
        table.add_row(
            escape(box["name"]), f"{len(slots['held'])} of {slots['of']}", escape(", ".join(names) + more) or "–"
        )
    return table


def _inhabitant(one: dict[str, Any]) -> str:
    rate = "" if one["requests_per_s"] is None else f" {one['requests_per_s']:.2f}"
    shared = f" (one of {one['homes']} homes)" if one["homes"] > 1 else ""
    return f"{'●' if one['in_slot'] else '○'} {one['adapter']}{rate}{shared}"


def _adapters(box: dict[str, Any]) -> str:
    """Those that something is wrong with."""
    found = ((kind, box[f"{kind}_adapters"]) for kind in ("missing", "failing", "suspected"))
    return "; ".join(f"{kind}: {', '.join(pair['adapter'] for pair in pairs)}" for kind, pairs in found if pairs)


def _reasons(requests: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in requests["degraded_by_reason"].items())
    return f" ({reasons})" if reasons else ""
