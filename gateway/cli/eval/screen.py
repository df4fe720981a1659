"""What people see of `failsoft eval`: bars while it runs, a table when it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from backend.evalgate.comparison import Comparison
from backend.evalgate.gate import p_value
from backend.evalgate.result import Result
from gateway.cli.eval.stacked_table import Row, print_stacked

OnAnswer = Callable[[str, bool], None]
"""Told of each answer: of which path, and whether it is right."""


@contextmanager
def progress(totals: Mapping[str, int], done: Mapping[str, int], *, shown: bool) -> Iterator[OnAnswer]:
    """A bar a path, on stderr where that is a terminal. ``done``: answers that an earlier run had already."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda path, right: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[right]}"), console=console, transient=True) as bars:
        tasks = {
            path: bars.add_task(path, total=total, completed=done.get(path, 0), right="")
            for path, total in totals.items()
        }
        seen, rights = Counter[str](), Counter[str]()

        def on_answer(path: str, right: bool) -> None:
            seen[path] += 1
            rights[path] += right
            bars.update(tasks[path], advance=1, right=f"{rights[path] / seen[path]:.1%} right")

        yield on_answer


_HEADINGS: Final = (
    "customer", "prompts", "baseline", "candidate", "points lost", "95 %", "worse/better", "p", "name", "args",
    "no call", "bad JSON",
)  # fmt: skip


def show(result: Result) -> None:
    """The table and the verdict, on stdout."""
    console = Console(emoji=False, highlight=False)
    tripped = {one.customer for one in result.tripped}
    every = *result.customers, result.overall
    print_stacked(console, _HEADINGS, [Row(_cells(one), "red" if one.customer in tripped else "") for one in every])
    console.print()
    for one_tripped in result.tripped:
        console.print(Text(f"{one_tripped.customer}: {one_tripped.why}", style="red"), soft_wrap=True)
    for line in result.warnings:
        console.print(Text(f"power: {line}", style="yellow"), soft_wrap=True)
    console.print(_verdict(result), soft_wrap=True)


def _cells(one: Comparison) -> list[str]:
    sides = one.baseline, one.candidate
    return [
        one.customer,
        str(one.baseline.prompts),
        *(_percent(side.right) for side in sides),
        f"{one.drop_points:z.2f}",
        f"{one.interval[0]:z.2f} – {one.interval[1]:z.2f}",
        f"{one.worse}/{one.better}",
        p_value(one.p),
        " ".join(_percent(side.name) for side in sides),
        " ".join(_percent(side.arguments) for side in sides),
        " ".join(_percent(side.refusals) for side in sides),
        " ".join(str(side.invalid_json) for side in sides),
    ]


def _verdict(result: Result) -> Text:
    if result.gate is None:
        return Text(f"no gate; {len(result.changes)} prompts came out differently")
    bound = f"{result.gate.points:g} points"
    if result.passed:
        return Text(f"passed: none of {len(result.customers)} customers loses more than {bound}", style="green")
    return Text(f"tripped: {len(result.tripped)} of {len(result.customers)} customers lose more than {bound}", "red")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
