"""`failsoft explain`: the plan that a running gateway would make for a request now, and why."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.limits_shown import in_words
from gateway.cli.order_line import order_line
from gateway.cli.score_line import score_line
from gateway.cli.whole_table import print_whole

_ROLES = {"own": "[green]asked[/]", "last_resort": "[yellow]last resort[/]", "left_out": "[red]left out[/]"}
_BREAKERS = {"closed": "closed", "half_open": "[yellow]half-open[/]", "open": "[red]open[/]"}


def explain(
    customer: Annotated[str, typer.Option(help="Who asks: the customer's name in the policies.")],
    model: Annotated[str, typer.Option(help="What is asked for: one of the customer's adapters or aliases.")],
    conversation: Annotated[
        str, typer.Option(help="Of an alias: the conversation, as its client names it in x-failsoft-conversation.")
    ] = "",
    plain: Annotated[bool, typer.Option("--plain", help="A request that does not stream.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Show which targets a chat request would meet now, in which order and for how long, and what was left out.

    Nothing is asked and nothing changes. It is what the one gateway at --url would do. Exits with 1 where there is no
    such customer, or the model is not that customer's; with 3 where no gateway answers. The admin token is read from
    FAILSOFT_ADMIN_TOKEN.
    """
    query = {"customer": customer, "model": model, "stream": "false" if plain else "true"}
    if conversation:
        query["conversation"] = conversation
    found = AdminClient(url).get("/admin/explain", **query)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    _show(found, Console(highlight=False, emoji=False))


def _show(found: dict[str, Any], console: Console) -> None:
    kind = "a stream" if found["stream"] else "a plain request"
    console.print(
        f"[bold]{escape(found['model'])}[/] for [bold]{escape(found['customer'])}[/], {kind}, "
        f"policy version {found['policy_version']}: first token within {found['first_token_budget_s']:g} s of a box, "
        f"the answer's beginning within {found['deadline_s']:g} s"
    )
    if found["alias"] is not None:
        console.print(_alias(found["alias"]))
    for order in found["orders"]:
        console.print(f"[yellow]by order[/]: {escape(order_line(order))}")
    if found["drill_share"]:
        console.print(f"{found['drill_share']:.3%} of the requests try a step of the fallback first, as a drill")
    if found["scores"] is not None:
        console.print(f"scores: {escape(score_line({'customer': found['customer'], **found['scores']}))}")
    console.print(_homes(found["homes"]))
    print_whole(console, _boxes(found))
    print_whole(console, _attempts(found))
    for line in found["left_out"]:
        console.print(f"[yellow]left out[/] {escape(line)}")
    if (limits := found.get("limits")) is not None and (words := in_words(limits)):
        console.print(f"limits: {words}")
    console.print(_verdict(found))


def _verdict(found: dict[str, Any]) -> str:
    if not found["attempts"]:
        return "[red]now: a 503, as nothing may be asked[/]"
    first = escape(found["attempts"][0]["served_by"])
    if found["degraded_reason"] is None:
        return f"[green]now: {first}[/]; {found['retries_left']} retries are left in the budget"
    return f"[yellow]now: {first}, degraded: {found['degraded_reason']}[/]"


def _alias(alias: dict[str, Any]) -> str:
    begin = f"{escape(alias['name'])} stands for [bold]{escape(alias['adapter'])}[/]"
    if alias["chosen_by"] == "only":
        return begin
    total = sum(alias["weights"].values())
    shares = ", ".join(f"{escape(name)} {weight / total:.0%}" for name, weight in alias["weights"].items())
    if alias["chosen_by"] == "conversation":
        return f"{begin} in conversation {escape(alias['conversation'])}; of all: {shares}"
    return f"{begin} in most conversations, which is shown; of all: {shares} (--conversation shows one)"


def _homes(homes: dict[str, Any]) -> str:
    if not homes["boxes"]:
        return "home: none, as the fleet has no boxes"
    how = "measured rates" if homes["placed_by"] == "rates" else "rendezvous hashing"
    names = " and ".join(f"[bold]{escape(name)}[/]" for name in homes["boxes"])
    line = f"home{'s' if len(homes['boxes']) > 1 else ''}: {names}, by {how}"
    if homes["why_first"] is None:
        return line
    return f"{line}; [yellow]{escape(homes['first'])} goes first[/]: {escape(homes['why_first'])}"


def _boxes(found: dict[str, Any]) -> Table:
    table = Table("box", "is", "breaker", "in flight / limit", "estimate / budget", "made of", "slots", "because")
    for box in found["boxes"]:
        flight, estimate = box["in_flight"], box["estimate"]
        counts = [f"{name} {count}" for name, count in flight["by_adapter"].items()]
        counts += [f"base {flight['base']}"] if flight["base"] else []
        ttft_s = "unknown" if estimate["ttft_s"] is None else f"{estimate['ttft_s']:.2f} s"
        mark = "red" if box["saturated"] else "green"
        parts = ", ".join(f"{name} {value:g}" for name, value in estimate["parts"].items() if value)
        slots = box["slots"]
        table.add_row(
            escape(box["name"]) + (" (home)" if box["is_home"] else ""),
            _ROLES[box["role"]],
            _BREAKERS[box["breaker"]["state"]],
            "\n".join([f"{flight['total']} / {box['concurrency_limit']}", *(escape(count) for count in counts)]),
            f"[{mark}]{ttft_s}[/] / {box['budget_s']:g} s",
            escape(parts) or "–",
            f"{len(slots['held'])} of {slots['of']}" + (", holds it" if slots["holds_it"] else ""),
            escape(_because(box)),
        )
    return table


def _because(box: dict[str, Any]) -> str:
    if box["why_not"] is not None:
        return f"{box['why_not']}{'; asked, as the policy has nothing else' if box['role'] == 'own' else ''}"
    if box["has_its_share"]:
        return "in its ramp, and has its share for now: others first"
    return "in its ramp" if box["in_ramp"] else "–"


def _attempts(found: dict[str, Any]) -> Table:
    table = Table("#", "attempt", "time limit", "runs at the latest", "note")
    for attempt in found["attempts"]:
        late = attempt["at_the_latest_s"]
        table.add_row(
            str(attempt["number"]),
            escape(attempt["served_by"]),
            "–" if attempt["limit_s"] is None else f"{attempt['limit_s']:.2f} s",
            "not reached" if late is None else f"{late[0]:.2f} s – {late[1]:.2f} s",
            escape("; ".join(attempt["notes"])) or "–",
        )
    return table
