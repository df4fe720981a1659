"""What `failsoft load` shows: a line that moves while it runs, tables when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backend.loadtest.comparison import Difference
from backend.loadtest.generator import Progress as Running
from backend.loadtest.page import milliseconds, percent
from backend.loadtest.sample import Sample
from backend.loadtest.statistics import quantile
from gateway.tasks import TaskSet

Document = dict[str, Any]
EVERY_S = 0.25
RECENT = 200
"""Answers behind the figures of the moving line."""
WIDE = 120
CUSTOMERS = 15
"""Shown; JSON and HTML have all."""


class LoadScreen:
    """Speaks on standard error, so that standard output is the report's."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)

    def failure(self, message: str, code: int) -> typer.Exit:
        """Say why it cannot be, for the caller to raise."""
        self._console.print(escape(f"failsoft: {message}"), soft_wrap=True)
        return typer.Exit(code)

    def begins(self, url: str, requests: int, length_s: float) -> None:
        """What is about to happen."""
        line = f"sending {requests:,} requests to {url} over {length_s:.0f} s; Ctrl-C ends it and reports what was sent"
        self._console.print(escape(line), style="dim", soft_wrap=True)

    @contextmanager
    def live(self, running: Running, tasks: TaskSet) -> Iterator[None]:
        """Show how it goes, where standard error is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=None)

            async def move() -> None:
                while True:
                    bar.update(task, total=max(running.length_s, 1e-9), completed=max(running.now_s, 0.0))
                    bar.update(task, description=moving_line(running))
                    await asyncio.sleep(EVERY_S)

            moving = tasks.spawn(move(), name="the moving line")
            try:
                yield
            finally:
                moving.cancel()


def moving_line(running: Running) -> str:
    """Counts of the run so far, and the times of the last answers."""
    recent: Sequence[Sample] = running.samples[-RECENT:]
    first = sorted(sample.ttft_s * 1000 for sample in recent if sample.ttft_s is not None)
    errors = sum(sample.error is not None for sample in recent)
    degraded = sum(sample.degraded is not None for sample in recent)
    line = f"{running.sent:,} sent, {running.in_flight:,} in flight"
    if first:
        line += f" · first token p50 {quantile(first, 0.5):,.0f} ms, p99 {quantile(first, 0.99):,.0f} ms"
    if recent:
        line += f" · of the last {len(recent)}: {degraded} degraded, {errors} failed"
    if running.late_s > 0.01:
        line += f" · sent {running.late_s * 1000:,.0f} ms late"
    return line


def show_report(document: Document) -> None:
    """The report, on standard output."""
    console = _console()
    run, overall = document["run"], document["overall"]
    console.print(
        f"\n[bold]{overall['requests']:,} requests[/] to {escape(run['url'])} in {run['measured_s']:.1f} s, "
        f"{run['warm_up_requests']:,} before as warm-up; open loop, measured from when each was due"
        + ("; [yellow]interrupted[/]" if run["interrupted"] else ""),
        soft_wrap=True,
    )
    for warning in document["client"]["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    console.print(_latencies(document))
    _customers(console, document)
    _counts(console, document)
    shared = document["table"]
    table = Table(*shared["columns"], title="Beside separate deployments")
    for row in shared["rows"]:
        table.add_row(*map(escape, row))
    console.print(table)
    for one in shared["assumptions"]:
        console.print(f"[dim]· {escape(one)}[/]", soft_wrap=True)


def show_comparison(found: Iterable[Difference], cautions: Iterable[str]) -> None:
    """Overall whole; of customers only what moved."""
    console = _console()
    for caution in cautions:
        console.print(f"[yellow]caution:[/] {escape(caution)}", soft_wrap=True)
    table = Table("", "", "before", "after", "change", "")
    styles = {"worse": "red", "better": "green", "same": "", "not judged": "dim"}
    for one in found:
        if one.scope != "overall" and one.verdict not in ("worse", "better"):
            continue
        cells = [one.scope, one.name, _figure(one, one.before), _figure(one, one.after), _change(one), one.verdict]
        table.add_row(*map(escape, cells), style=styles[one.verdict])
    console.print(table)


def _console() -> Console:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE  # a file has no width, and rich would take it for a narrow terminal
    return console


def _latencies(document: Document) -> Table:
    overall = document["overall"]
    table = Table("ms", "p50", "p90", "p99", "mean", "max", "answers")
    names = {"ttft_ms": "time to first token", "inter_token_ms": "inter-token latency",
             "longest_gap_ms": "longest gap in a stream", "e2e_ms": "end to end"}  # fmt: skip
    for name, words in names.items():
        one = overall[name]
        cells = [milliseconds(one[point]) for point in ("p50", "p90", "p99", "mean", "max")]
        table.add_row(words, *cells, f"{one['count']:,}")
    return table


def _customers(console: Console, document: Document) -> None:
    table = Table("customer", "requests", "in budget", "degraded", "errors", "TTFT p50/p90/p99", "end to end")
    customers = document["customers"]
    for name, one in list(customers.items())[:CUSTOMERS]:
        times = [
            "/".join(_whole(one[kind][point]) for point in ("p50", "p90", "p99")) for kind in ("ttft_ms", "e2e_ms")
        ]
        counts = [percent(one["goodput"]["share"]), percent(one["degraded_share"]), f"{one['errors']:,}"]
        table.add_row(escape(name), f"{one['requests']:,}", *counts, *times)
    console.print(table)
    if len(customers) > CUSTOMERS:
        console.print(f"and {len(customers) - CUSTOMERS} more (--out, --html)")


def _counts(console: Console, document: Document) -> None:
    overall, swaps = document["overall"], document["swaps"]
    goodput = overall["goodput"]
    console.print(
        f"goodput {goodput['per_s']:.2f} requests/s: {percent(goodput['share'])} answered within budget, "
        f"{percent(goodput['own_share'])} by the own adapter",
        soft_wrap=True,
    )
    for name, one in document["targets"].items():
        console.print(
            f"{escape(name)}: {one['answers']:,} answers of {one['models']} models, "
            f"{one['output_tokens_per_s']:,.1f} output tokens/s",
            soft_wrap=True,
        )
    for url, engine in document["engines"].items():
        console.print(
            f"{escape(url)}, by its own count: {engine['output_tokens']:,} output tokens, "
            f"{engine['preemptions']:,} preemptions",
            soft_wrap=True,
        )
    console.print(
        "swaps: not read (the gateway's /metrics; --metrics URL where it has an admin listener)"
        if swaps is None
        else f"swaps, predicted by the gateway: {swaps['total']:,}, {swaps['per_s']:.2f} a second",
        soft_wrap=True,
    )
    for title in ("degraded", "errors"):
        for reason, one in document[title].items():
            console.print(f"{title}: {escape(reason)} {one['requests']:,} ({percent(one['share'])})", soft_wrap=True)


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _figure(one: Difference, value: float | None) -> str:
    if value is None:
        return "–"
    return percent(value) if one.unit == "share" else f"{milliseconds(value)} {one.unit}"


def _change(one: Difference) -> str:
    if one.change is None:
        return "–"
    return f"{one.change:+.2f} points" if one.unit == "share" else f"{one.change:+.1%}"
