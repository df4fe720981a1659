"""`failsoft load`: traffic to a gateway, open loop, and what came of it; `load compare`: two such runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from backend.loadtest.budget import Budget
from backend.loadtest.client import Address
from backend.loadtest.comparison import Threshold, compare, differing_runs
from backend.loadtest.cost import CostModel, table
from backend.loadtest.generator import Generator, Run
from backend.loadtest.models import GatewaySilent, KeyRefused, models_of, reach
from backend.loadtest.page import page
from backend.loadtest.report import Window, columns, report
from backend.loadtest.scrape import Look, between, look, reader
from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from backend.traffic.population import Asker, NobodyToAsk, population
from backend.traffic.read import TrafficError
from backend.traffic.schedule import schedule
from backend.traffic.trace import read_trace, write_trace
from gateway.cli.exit_codes import FOUND_WRONG, MISUSE, UNREACHABLE
from gateway.cli.load_inputs import Inputs, budgets_for, changed, find, read_report, seconds
from gateway.cli.load_screen import LoadScreen, show_comparison, show_report
from gateway.clock import wall_s
from gateway.errors import PolicyError
from gateway.tasks import TaskSet

app = typer.Typer(
    help="Ask a gateway as its customers do, at times that do not depend on its answers, and report what came of it.",
    invoke_without_command=True,
    add_completion=False,
)


@app.callback()
def load(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar="FAILSOFT_URL", help="The gateway; that of a running demo, else port 8080 here."),
    ] = None,
    traffic: Annotated[Path | None, typer.Option(metavar="FILE", help="traffic.yaml: rates, weights, lengths.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Replay a recorded trace (JSON lines).")] = None,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help="Replay the trace so many times as fast.")] = 1.0,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="FAILSOFT_LOAD_KEYS", help="YAML: CUSTOMER: KEY, or {key, model}."),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Take each customer's budgets here."),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time to first token that counts as in time, of streams.")] = "2s",
    plain_budget: Annotated[str, typer.Option(help="The same of a whole plain answer.")] = "30s",
    rate: Annotated[float | None, typer.Option(min=0.01, help="Requests a minute, in place of the file's.")] = None,
    duration: Annotated[str | None, typer.Option(help="How long is measured, such as 60s or 5m.")] = None,
    warm_up: Annotated[
        str | None, typer.Option(help="Uncounted traffic before that; of a trace its beginning.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same arrivals.")] = None,
    patience: Annotated[str, typer.Option(help="No request is waited for longer.")] = "2m",
    at_once: Annotated[
        int, typer.Option(min=1, help="In flight at most; one more is an error of the client's.")
    ] = 4096,
    exact_output: Annotated[
        bool, typer.Option(help="Ask vLLM for exactly the output length (ignore_eos), or let the model end.")
    ] = True,
    box: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Read this box's /metrics too; repeatable.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="URL", help="The gateway's admin listener, if it has one.")
    ] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what was sent as a trace.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Keep every request in the JSON, as failsoft plan --calibrate needs it.")
    ] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")] = None,
    beside: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A report (JSON) of one standalone deployment, for the table.")
    ] = None,
    gpu_usd: Annotated[float, typer.Option(min=0, help="One GPU, USD a month.")] = 600.0,
    gpus_per_box: Annotated[int, typer.Option(min=1)] = 1,
    base_gb: Annotated[float, typer.Option(min=0, help="The base's weights, GB.")] = 16.0,
    adapter_mb: Annotated[float, typer.Option(min=0, help="One adapter, MB.")] = 42.0,
    goodput_at_least: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit with 1 where a smaller share was answered in time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Send traffic and report. With no options: to the demo that runs here, 600 requests a minute, for a minute.

    Every time is measured from the moment a request was due, so that a server that stalls is charged for all who would
    have asked meanwhile. Exits with 1 where nothing was answered, or too little in time, with 3 where no gateway is.
    """
    if context.invoked_subcommand is not None:
        return
    screen = LoadScreen()
    if trace is not None and (traffic, rate, duration) != (None, None, None):
        raise typer.BadParameter(
            "has its own times and requests: leave out --traffic, --rate and --duration", param_hint="--trace"
        )
    try:
        address_url, credentials, demo_policies = find(url, keys, os.environ)
        mix = changed(traffic, rate=rate, duration=duration, warm_up=warm_up, seed=seed)
        usual = Budget(seconds(budget, "--budget"), seconds(plain_budget, "--plain-budget"))
        settings = Settings(
            url=address_url,
            address=Address.parse(address_url),
            inputs=Inputs(credentials, budgets_for(policies or demo_policies, usual)),
            mix=mix,
            replay=None if trace is None else _faster(read_trace(trace), speed),
            warm_up_s=mix.warm_up if trace is None or warm_up is not None else 0.0,
            patience_s=seconds(patience, "--patience"),
            at_once=at_once,
            exact_output=exact_output,
            metrics=f"{(metrics or address_url).rstrip('/')}/metrics",
            samples=samples,
            boxes=tuple(f"{one.rstrip('/')}/metrics" for one in box or ()),
        )
        standalone = None if beside is None else read_report(beside)
        document, arrivals = _on_uvloop(settings, screen)
    except (TrafficError, NobodyToAsk, PolicyError, ValueError) as error:
        raise screen.failure(str(error), MISUSE) from None
    except KeyRefused as error:
        raise screen.failure(str(error), FOUND_WRONG) from None
    except GatewaySilent as error:
        raise screen.failure(str(error), UNREACHABLE) from None
    document["run"]["trace"] = None if trace is None else trace.name
    cost = CostModel(gpu_usd, gpus_per_box, base_gb=base_gb, adapter_mb=adapter_mb)
    document["table"] = table(document, cost, standalone)
    try:
        if record is not None:
            write_trace(record, arrivals)
        if out is not None:
            out.write_text(json.dumps(document, indent=1) + "\n")
        if html is not None:
            html.write_text(page(document))
    except OSError as error:
        raise screen.failure(f"{error.filename}: {error.strerror}", UNREACHABLE) from None
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        show_report(document)
    share = document["overall"]["goodput"]["share"] or 0.0
    if not document["overall"]["answered"] or (goodput_at_least is not None and share < goodput_at_least):
        raise typer.Exit(FOUND_WRONG)


@app.command("compare")
def compare_runs(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A report, as --out writes it.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Another.")],
    threshold: Annotated[float, typer.Option(min=0, help="By how much latencies and throughput may be worse, %.")] = 10,
    points: Annotated[float, typer.Option(min=0, help="By how many points shares may be worse.")] = 1.0,
    customers: Annotated[bool, typer.Option(help="Look at each customer too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print facts as JSON.")] = False,
) -> None:
    """Compare two runs; exits with 1 where B is worse than A by more than the threshold.

    A percentile that too few answers stand behind is shown and not judged.
    """
    try:
        first, second = read_report(before), read_report(after)
    except ValueError as error:
        raise LoadScreen().failure(str(error), MISUSE) from None
    found = compare(first, second, Threshold(threshold / 100, points), customers=customers)
    cautions = differing_runs(first, second)
    worse = [one for one in found if one.verdict == "worse"]
    if as_json:
        rows = [{name: getattr(one, name) for name in one.__slots__} for one in found]
        sys.stdout.write(json.dumps({"worse": len(worse), "cautions": cautions, "figures": rows}, indent=2) + "\n")
    else:
        show_comparison(found, cautions)
    if worse:
        raise typer.Exit(FOUND_WRONG)


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. ``replay``: a trace's arrivals, in place of the mix's."""

    url: str
    address: Address
    inputs: Inputs
    mix: TrafficMix
    replay: Sequence[Arrival] | None
    warm_up_s: float
    patience_s: float
    at_once: int
    exact_output: bool
    metrics: str
    samples: bool
    boxes: tuple[str, ...]


def _on_uvloop(settings: Settings, screen: LoadScreen) -> tuple[dict[str, Any], Sequence[Arrival]]:
    import uvloop  # here: `failsoft load --help` and its mistakes need none of it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_perform(settings, screen))


async def _perform(settings: Settings, screen: LoadScreen) -> tuple[dict[str, Any], Sequence[Arrival]]:
    """The run and its report. Raises GatewaySilent, KeyRefused or NobodyToAsk."""
    await reach(settings.url)
    credentials, mix = settings.inputs.credentials, settings.mix
    askers: Sequence[Asker] = ()
    if settings.replay is None:
        known = await models_of(settings.url, _asked(credentials, mix))
        askers = population(mix, known)
        arrivals: Sequence[Arrival] = schedule(mix, askers=askers)
        end_s = mix.length_s
    else:
        arrivals = settings.replay
        end_s = arrivals[-1].at_s
    _all_have_keys(arrivals, credentials)
    if not any(arrival.at_s >= settings.warm_up_s for arrival in arrivals):
        raise ValueError("no request is due after the warm-up: ask for a longer duration or more requests a minute")
    generator = Generator(
        settings.address,
        {name: one.key for name, one in credentials.items()},
        patience_s=settings.patience_s,
        at_once=settings.at_once,
        exact_output=settings.exact_output,
        seed=mix.seed,
    )
    screen.begins(settings.url, len(arrivals), end_s)
    began = wall_s()
    async with reader() as metrics:
        run, before, after = await _measured(generator, arrivals, settings, screen, metrics)
    if run.interrupted:
        end_s = min(end_s, generator.progress.now_s)
    document = report(
        run,
        Window(settings.warm_up_s, max(end_s, settings.warm_up_s + 1e-3)),
        settings.inputs.budgets,
        between(before, after, settings.metrics),
        {**_about(settings, began), "adapters": len({one.model for one in askers or arrivals})},
    )
    if settings.samples:
        document["samples"] = columns(run.samples)
    return document, arrivals


async def _measured(
    generator: Generator,
    arrivals: Sequence[Arrival],
    settings: Settings,
    screen: LoadScreen,
    metrics: httpx2.AsyncClient,
) -> tuple[Run, Look, Look]:
    urls = [settings.metrics, *settings.boxes]
    before, tasks = Look(), TaskSet()

    async def first_look() -> None:
        nonlocal before
        before = await look(metrics, urls)

    def mark() -> None:
        tasks.spawn(first_look(), name="the first look at metrics")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, generator.stop.set)
    await look(metrics, urls)  # for nothing but to have connected, and to have all that it takes imported
    gc.collect()
    gc.freeze()  # the schedule is not worth a look at each collection, which would hold requests up
    try:
        with screen.live(generator.progress, tasks):
            run = await generator.run(
                arrivals,
                mark_s=settings.warm_up_s,
                mark=mark,
            )
        return run, before, await look(metrics, urls)
    finally:
        gc.unfreeze()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await tasks.close()


def _about(settings: Settings, began_s: float) -> dict[str, Any]:
    usual = settings.inputs.budgets.usual
    return {
        "url": settings.url,
        "began": dt.datetime.fromtimestamp(began_s, dt.UTC).isoformat(timespec="seconds"),
        "seed": settings.mix.seed,
        "warm_up_s": settings.warm_up_s,
        "traffic": settings.mix.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if settings.replay is None
        else None,
        "trace": None,
        "exact_output": settings.exact_output,
        "budget": {"ttft_s": usual.ttft_s, "plain_s": usual.plain_s},
        "budgets": {
            name: {"ttft_s": one.ttft_s, "plain_s": one.plain_s}
            for name, one in settings.inputs.budgets.by_customer.items()
        },
    }


def _asked(credentials: Mapping[str, Any], mix: TrafficMix) -> dict[str, Any]:
    """Of those with a key, the ones whose model the mix does not say."""
    if mix.customers is None:
        return dict(credentials)
    return {
        name: credentials[name] for name, part in mix.customers.items() if name in credentials and part.model is None
    }


def _all_have_keys(arrivals: Sequence[Arrival], credentials: Mapping[str, Any]) -> None:
    missing = sorted({arrival.customer for arrival in arrivals} - credentials.keys())
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"no key is known of {', '.join(missing[:5])}{more}: write them into the file of --keys")


def _faster(arrivals: Sequence[Arrival], speed: float) -> list[Arrival]:
    return [
        Arrival(one.at_s / speed, one.customer, one.model, one.prompt_tokens, one.output_tokens, one.streamed)
        for one in arrivals
    ]
