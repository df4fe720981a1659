"""`failsoft plan`: how many boxes and slots a traffic needs, what they give and cost, and what if."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from backend.planner.assumptions import assumptions
from backend.planner.bill import Prices
from backend.planner.document import document
from backend.planner.goal import DEFAULT, HELP, BadGoal, read_goal
from backend.planner.observed import CalibrationError
from backend.planner.page import page
from backend.planner.scenario import Option, ProviderPace, Scenario
from backend.planner.study import Study, Studying, default_jobs
from backend.planner.terms import PlanError, compiled, fleet_of, known_models, made_up
from backend.planner.traffic_words import traffic_line
from backend.planner.what_if import Traffic, WhatIf, read_what_if
from backend.planner.words import GIVEN_UP, NARROW, answer_lines, narrow_cells
from backend.simulator.engine_knobs import BadKnobs, ModelKnobs
from backend.traffic.mix import TrafficMix
from backend.traffic.population import NobodyToAsk
from backend.traffic.read import TrafficError, read_mix
from backend.traffic.trace import read_trace
from gateway.cli import plan_engine
from gateway.cli.exit_codes import FOUND_WRONG, MISUSE
from gateway.cli.plan_engine import engine_of
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.durations import parse_duration
from gateway.policy.validate import read_folder

AS_IT_IS = "as it is"
BUILT_IN = "built-in traffic, as neither --traffic nor --trace nor rates were given"
MOST_BOXES = 512
MOST_SLOTS = 4096


def plan(
    traffic: Annotated[Path | None, typer.Option(metavar="FILE", help="A traffic file, as of failsoft load.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="A recorded trace: JSON lines.")] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="Of all customers; also in place of the file's.", min=0.001)
    ] = None,
    customers: Annotated[
        int | None, typer.Option(help="Without a file: so many, with an adapter each [40].", min=1, max=100_000)
    ] = None,
    zipf: Annotated[
        float | None, typer.Option(help="Without a file: the n-th asks 1/n to this power as much [1.0].", min=0, max=5)
    ] = None,
    prompt_tokens: Annotated[
        str | None, typer.Option(metavar="N|N-M", help="Without a file: how long prompts are [256].")
    ] = None,
    output_tokens: Annotated[
        str | None, typer.Option(metavar="N|N-M", help="Without a file: how long answers are [256].")
    ] = None,
    duration: Annotated[str, typer.Option(help="How long is counted; also in place of the file's.")] = "",
    warm_up: Annotated[str, typer.Option(help="Not counted, before that; of a trace its beginning.")] = "",
    policies: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Customers, budgets, fallbacks; its boxes, unless --boxes or --search."),
    ] = None,
    boxes: Annotated[str, typer.Option(metavar="1..4|1,2", help="These numbers of boxes, and no search.")] = "",
    slots: Annotated[str, typer.Option(metavar="8,16", help="LoRA slots of a box (--max-loras) [8].")] = "",
    search: Annotated[bool, typer.Option("--search", help="Search though --policies names boxes.")] = False,
    most_boxes: Annotated[int, typer.Option(help="The search gives up beyond.", min=1, max=MOST_BOXES)] = 32,
    goal: Annotated[str, typer.Option(help=f"What has to be reached: {HELP}.")] = DEFAULT,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            help="box-dies (the busiest, at the peak), box-dies@90s, customers=10x, or several with +; repeatable."
        ),
    ] = None,
    gpu_usd_per_hour: Annotated[float, typer.Option(help="What a box costs.", min=0)] = Prices().gpu_usd_per_hour,
    hosted_ttft_ms: Annotated[float, typer.Option(help="A provider's time to first token.", min=0)] = 600.0,
    hosted_itl_ms: Annotated[float, typer.Option(help="And between two tokens.", min=0)] = 10.0,
    max_num_seqs: Annotated[int | None, typer.Option(help="Engine: sequences that run at once [256].", min=1)] = None,
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Engine: tokens in the KV cache [400000].", min=16)
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Engine: tokens of one step [2048].", min=1)
    ] = None,
    swap_ms: Annotated[float | None, typer.Option(help="Engine: an adapter into a slot [40].", min=0)] = None,
    disk_load_ms: Annotated[float | None, typer.Option(help="Engine: from disk [400].", min=0)] = None,
    prefill_tokens_per_s: Annotated[
        float | None, typer.Option(help="Engine: prompt tokens a second [10000].", min=1)
    ] = None,
    decode_ms: Annotated[float | None, typer.Option(help="Engine: any step [1.3].", min=0.001)] = None,
    decode_ms_per_seq: Annotated[float | None, typer.Option(help="Engine: of each sequence [0.23].", min=0)] = None,
    decode_ms_per_adapter: Annotated[float | None, typer.Option(help="Engine: of each adapter [0.02].", min=0)] = None,
    engine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of these, such as decode_ms: 5.1; options go before it.")
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Take the engine from what was measured: a report of failsoft load --samples, or a table of "
            "bench.gpu; repeatable.",
        ),
    ] = None,
    save_engine: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the engine, for --engine.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same gives the same plan [the file's, or 1].")] = None,
    jobs: Annotated[
        int, typer.Option(help="Simulations at a time; 0: as many as there are processors, at most 4.", min=0)
    ] = 0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Say how many boxes and LoRA slots a traffic needs: the smallest that reach the goal, or a comparison.

    The gateway's own code decides, before modelled vLLM boxes, in virtual time: nothing is asked over a network, and no
    GPU is needed. Exits with 1 where no option reaches the goal in one of the scenarios.
    """
    try:
        source = _traffic(
            traffic,
            trace,
            {
                "requests_per_minute": requests_per_minute,
                "adapters": customers,
                "zipf": zipf,
                "prompt_tokens": _lengths(prompt_tokens, "--prompt-tokens"),
                "output_tokens": _lengths(output_tokens, "--output-tokens"),
                "duration": duration or None,
                "warm_up": warm_up or None,
                "seed": seed,
            },
            None if policies is None else compiled(read_folder(policies)),
        )
        options = ModelKnobs(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_tokens=kv_cache_tokens,
            swap_ms=swap_ms,
            disk_load_ms=disk_load_ms,
            prefill_tokens_per_s=prefill_tokens_per_s,
            decode_ms=decode_ms,
            decode_ms_per_seq=decode_ms_per_seq,
            decode_ms_per_adapter=decode_ms_per_adapter,
        )
        knobs, measured = engine_of(engine, calibrate or (), options)
        if calibrate:
            sys.stderr.writelines(f"{line}\n" for line in plan_engine.told(measured))
        if save_engine is not None:
            plan_engine.save_engine(save_engine, knobs, measured.notes)
        like = Scenario(
            AS_IT_IS,
            (),
            0.0,
            0.0,
            made_up(()),
            knobs,
            ProviderPace(hosted_ttft_ms / 1000, hosted_itl_ms / 1000),
            seed=seed if seed is not None else source.mix.seed if source.mix is not None else 1,
        )
        asked = [WhatIf(AS_IT_IS), *map(read_what_if, what_if or ())]
        scenarios = [source.scenario(one, like) for one in asked]
        aim = read_goal(goal)
        if any(clause.what == "ttft" for clause in aim.clauses) and not any(
            arrival.streamed for one in scenarios for arrival in one.arrivals
        ):
            raise PlanError("nothing in this traffic streams, so that no time to first token is seen: aim at e2e")
        prices = Prices(gpu_usd_per_hour)
        wanted = None if search else _options(boxes, slots, scenarios[0], policies)
        with _telling(Console(stderr=True, highlight=False)) as told:
            studying = Studying(scenarios, aim, prices, told, jobs or default_jobs())
            if wanted is not None:
                study = studying.compare(wanted)
            else:
                study = studying.search(_numbers(slots or "8", "--slots", MOST_SLOTS), most_boxes)
    except (PlanError, CalibrationError, BadGoal, NobodyToAsk, BadKnobs) as error:
        raise _misuse(str(error)) from None
    except TrafficError as error:
        for one in error.diagnostics:
            sys.stderr.write(f"{one}\n")
        raise typer.Exit(FOUND_WRONG) from None
    if html is not None:
        _write(html, page(study, scenarios, prices))
    if as_json:
        sys.stdout.write(json.dumps(document(study, scenarios, prices), indent=2) + "\n")
    else:
        _show(study, scenarios, prices, Console(highlight=False, emoji=False))
    if any(study.cheapest(one.name) is None for one in scenarios):
        raise typer.Exit(FOUND_WRONG)


def _traffic(
    traffic: Path | None, trace: Path | None, written: dict[str, Any], policy: CompiledPolicy | None
) -> Traffic:
    """Raises PlanError, TrafficError."""
    given = {name: value for name, value in written.items() if value is not None}
    known = None if policy is None else known_models(policy)
    if trace is not None:
        if traffic is not None or given.keys() - {"duration", "warm_up", "seed"}:
            raise PlanError("a trace says itself who asks what: only --duration, --warm-up and --seed go with it")
        arrivals = read_trace(trace)
        warm_up_s = parse_span(given.get("warm_up", "0s"))
        longest_s = max(one.at_s for one in arrivals) + 1e-6
        length_s = min(longest_s, warm_up_s + parse_span(given["duration"])) if "duration" in given else longest_s
        kept = [one for one in arrivals if one.at_s < length_s]
        if length_s <= warm_up_s or not kept:
            raise PlanError("nothing is left of the trace behind its warm-up")
        return Traffic(None, kept, length_s, warm_up_s, policy, known, f"the trace {trace.name}")
    if traffic is not None:
        if beside := given.keys() & {"adapters", "zipf", "prompt_tokens", "output_tokens"}:
            raise PlanError(f"the traffic file says {', '.join(sorted(beside))} itself")
        mix, source = read_mix(traffic), f"the traffic file {traffic.name}"
    else:
        source = "rates as given, the rest built in" if given.keys() - {"seed", "duration", "warm_up"} else BUILT_IN
        people = {name: given.pop(name) for name in ("zipf", "adapters") if name in given}
        mix = TrafficMix.model_validate({"duration": "3m", "warm_up": "60s", **people})
    for name in ("duration", "warm_up"):
        if name in given:
            given[name] = parse_span(given[name])
    mix = mix.model_copy(update=given)
    return Traffic(mix, (), mix.length_s, mix.warm_up, policy, known, source)


def parse_span(text: str) -> float:
    """A duration such as 90s or 5m, or 0s. Raises PlanError."""
    try:
        return 0.0 if text in ("0", "0s") else parse_duration(text)
    except ValueError as error:
        raise PlanError(f"{text!r} {error}") from None


def _lengths(text: str | None, option: str) -> Any:
    if text is None:
        return None
    read = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if read is None or (first := int(read[1])) < 1 or (read[2] is not None and int(read[2]) < first):
        raise typer.BadParameter("a number of tokens, or two with - between", param_hint=option)
    both = [first, int(read[2] or first)]
    return TrafficMix.model_validate({"prompt_tokens": {"uniform": both}}).prompt_tokens


def _options(boxes: str, slots: str, scenario: Scenario, policies: Path | None) -> list[Option] | None:
    """What is to be compared; None: search."""
    if boxes:
        each = _numbers(slots or "8", "--slots", MOST_SLOTS)
        return [Option(b, s) for s in each for b in _numbers(boxes, "--boxes", MOST_BOXES)]
    if policies is None:
        return None
    there = fleet_of(scenario.policy, scenario.arrivals).boxes
    held = {box.max_loras for box in there}
    if slots:
        return [Option(len(there), each) for each in _numbers(slots, "--slots", MOST_SLOTS)]
    if len(held) > 1:
        raise PlanError("the boxes of the policies have different max_loras: say with --slots which to plan with")
    return [Option(len(there), held.pop())]


def _numbers(text: str, option: str, most: int) -> list[int]:
    found: dict[int, None] = {}
    for part in text.split(","):
        read = re.fullmatch(r"\s*(\d{1,6})(?:(?:\.\.|-)(\d{1,6}))?\s*", part)
        if read is None or not 1 <= int(read[1]) <= int(read[2] or read[1]) <= most:
            raise typer.BadParameter(f"numbers from 1 to {most}, as 1..4 or 8,16", param_hint=option)
        found.update(dict.fromkeys(range(int(read[1]), int(read[2] or read[1]) + 1)))
    return list(found)


class _Simulating:
    """What was begun last, and for how long all of it has gone on, which is drawn anew while nothing is told."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._runs = 0
        self._words = "simulating"

    def told(self, words: str) -> None:
        self._runs += 1
        self._words = words

    def __rich__(self) -> Text:
        return Text(f"{self._words} (run {self._runs}, {time.monotonic() - self._began_s:.0f} s)")


@contextmanager
def _telling(console: Console) -> Iterator[Any]:
    """Shows what is being simulated, where somebody looks."""
    screen = _Simulating()
    with console.status(screen):
        yield screen.told


def _show(study: Study, scenarios: Sequence[Scenario], prices: Prices, console: Console) -> None:
    console.print(f"goal: [bold]{escape(str(study.goal))}[/]")
    for one in scenarios:
        console.print(f"traffic {escape(traffic_line(one))}")
    for scenario in dict.fromkeys(row.scenario for row in study.rows):
        table = Table(title=f"[bold]{escape(scenario)}[/]: time to first token, shares, swaps a request")
        table.title_justify, table.title_style, table.box = "left", "none", SIMPLE_HEAD
        table.padding, table.pad_edge = (0, 1, 0, 0), False
        for name in NARROW:
            table.add_column(name, justify="right", no_wrap=True)
        for row in study.rows:
            if row.scenario == scenario:
                *most, verdict = (escape(cell) for cell in narrow_cells(row))
                table.add_row(*most, f"[{'red' if row.missed else 'green'}]{verdict}[/]")
        console.print(table)
    if any(row.stopped_at_s is not None for row in study.rows):
        console.print(f"[dim]{escape(GIVEN_UP)}[/]")
    for line in answer_lines(study):
        console.print(f"[bold]→[/] {escape(line)}")
    console.print("[dim]taken for granted:[/]")
    for text in dict.fromkeys(text for one in scenarios for text in assumptions(one, prices)):
        console.print(f"[dim]- {escape(text)}[/]")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _misuse(f"cannot write {path}: {error.strerror or error}") from None


def _misuse(message: str) -> typer.Exit:
    sys.stderr.write(f"failsoft plan: {message}\n")
    return typer.Exit(MISUSE)
