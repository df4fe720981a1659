"""What the demo prints, for people."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gateway.clock import wall_s
from gateway.demo.cast import Customer
from gateway.demo.narrator import Line, Mood
from gateway.demo.question import question

STYLES: dict[Mood, str] = {"good": "green", "degraded": "yellow", "bad": "bold red", "plain": "dim"}


class Screen:
    """Prints lines as they come; colours where the output is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    def line(self, line: Line) -> None:
        """One line of what happens, with the time of day."""
        at = dt.datetime.fromtimestamp(wall_s()).astimezone().strftime("%H:%M:%S")
        text = Text.assemble((f"{at} ", "dim"), (f"{line.subject:<9} ", "bold"), (line.text, STYLES[line.mood]))
        self._console.print(text, soft_wrap=True)

    def introduction(self, url: str, customer: Customer, *, boxes: tuple[str, ...], ops: str, state: str) -> None:
        """How to take part. ``state``: the options with which a command finds this demo, if it needs any."""
        say = self._console.print
        say(f"\n[bold]The gateway answers at {url}/v1[/]\n", soft_wrap=True)
        say("Ask it something:\n", style="bold")
        say(escape(_curl(url, customer)), soft_wrap=True)
        say("\nOr with the OpenAI SDK, unmodified:\n", style="bold")
        say(escape(_snippet(url, customer)), soft_wrap=True)
        say(f"\n[bold]Ops page:[/] {escape(ops)}", soft_wrap=True)
        say(
            "\n  (its adapter calls the customer's own tool in its own style; degraded answers call a generic one)",
            soft_wrap=True,
        )
        say("\nKill a box and watch what the customers notice, from another terminal:\n", style="bold")
        for verb, box in (("kill", boxes[0]), ("kill", boxes[-1]), ("revive", boxes[0])):
            say(f"  {escape(_own_command())} demo {verb} {box}{escape(state)}", soft_wrap=True)
        say("\n  (freeze and thaw stop a box without ending it; Ctrl-C here ends everything)\n")

    def complaint(self, text: str) -> None:
        """Why the demo cannot go on."""
        self._console.print(escape(text), style="bold red", soft_wrap=True)


def _own_command() -> str:
    """The ``failsoft`` of this environment as it can be typed here."""
    script = Path(sys.prefix) / "bin" / "failsoft"
    if not script.exists():
        return f"{sys.executable} -m gateway.cli"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


def _curl(url: str, customer: Customer) -> str:
    body = json.dumps(question(customer.adapter))
    return (
        f"  curl -i {url}/v1/chat/completions \\\n"
        f"    -H 'authorization: Bearer {customer.key}' -H 'content-type: application/json' \\\n"
        f"    -d '{body}'"
    )


def _snippet(url: str, customer: Customer) -> str:
    asked = question(customer.adapter)
    return (
        "  from openai import OpenAI\n\n"
        f'  client = OpenAI(base_url="{url}/v1", api_key="{customer.key}")\n'
        "  answer = client.chat.completions.create(\n"
        f'      model="{customer.adapter}",\n'
        f"      messages={asked['messages']},\n"
        f"      tools={asked['tools']},\n"
        "  )\n"
        "  print(answer.model, answer.choices[0].message.tool_calls)"
    )
