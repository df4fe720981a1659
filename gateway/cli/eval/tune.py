"""`failsoft eval tune`: which house style has a hosted provider's generic model do best in a customer's place."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from backend.evalgate.case import Case, by_customer, digest
from backend.evalgate.folder import Key, RunFolder, read_answers, write_whole
from backend.evalgate.gate import p_value
from backend.evalgate.ranking import Ranked, Ranking, rank
from backend.evalgate.result import judged
from backend.evalgate.said import Said
from backend.evalgate.sampling import Sampling
from gateway.cli.eval.asking import ask_the_rest, trouble_told
from gateway.cli.eval.stacked_table import Row, print_stacked
from gateway.cli.eval.terms import (
    EnumCase,
    EnumCaseOption,
    JsonOption,
    Sets,
    cases_of,
    print_json,
    set_files,
)
from gateway.cli.exit_codes import FOUND_WRONG, MISUSE
from gateway.cli.speech import failure, say
from gateway.clock import wall_s
from gateway.errors import PolicyError

if TYPE_CHECKING:
    from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderStep

OWN: Final = "policy"
"""The name of the prompt that the policy has now."""
NONE: Final = "none"
"""No system prompt at all."""


def tune(
    sets: Sets,
    policies: Annotated[
        Path,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Whose providers, and who may be sent there."),
    ],
    prompts: Annotated[
        list[Path],
        typer.Option(metavar="PATH", exists=True, help="System prompts to try: a file, or a folder of *.txt and *.md."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="The folder of the run, which goes on there.")
    ],
    provider: Annotated[
        str | None, typer.Option(help="The step that asks this one; else the fallback's first.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Prompts at once.")] = 4,
    samples: Annotated[int, typer.Option(min=1, help="Answers a prompt; several need --temperature.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 1024,
    seed: Annotated[int, typer.Option(help="Of the samples and of the bootstrap.")] = 0,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for a whole answer.")] = 60.0,
    enum_case: EnumCaseOption = EnumCase.MATCH,
    as_json: JsonOption = False,
) -> None:
    """Try system prompts for customers' degraded answers, beside the policy's own one and none at all.

    Each case goes to the customer's hosted provider as its degraded requests do: by its policy's model and dropped
    fields. Nothing is sent for a customer whose policy says hosted: {allowed: false}. What it costs is the provider's
    price of cases times prompts; the policies' daily caps do not count it. Exits with 1 where a customer of the sets
    was left out, with 2 on misuse, with 3 where a provider gives no answers; the same command then goes on.
    """
    files = set_files(sets)
    cases = cases_of(files)
    # What asks providers is loaded here, and not by every other command of the group.
    from gateway.policy.compile import compile_policy
    from gateway.policy.validate import read_folder

    try:
        sampling = Sampling(samples, temperature, max_tokens, seed)
        policy = compile_policy(read_folder(policies), version=0, store_id="", created_s=0, env=os.environ)
    except (PolicyError, ValueError) as error:
        raise failure(str(error), MISUSE) from None
    texts = _prompts(prompts)
    steps, left_out = _steps(policy, by_customer(cases), provider)
    for name, why in left_out.items():
        say(f"{name} is left out: {why}", style="yellow")
    if not steps:
        raise failure("nothing is to be asked", MISUSE)
    asking = _Asking(policy, steps, texts, [case for case in cases if case.customer in steps], sampling)
    with trouble_told(out), RunFolder(out) as folder:
        folder.begin(asking.plan(digest(files)), files)
        asyncio.run(asking.through(folder, concurrency, timeout_s, quiet=as_json))
    rankings = asking.rankings(read_answers(out), enum_case=enum_case is EnumCase.MATCH)
    facts = {"customers": [one.as_json() for one in rankings], "left_out": left_out}
    write_whole(out / "tune.json", json.dumps(facts, indent=2))
    if as_json:
        print_json(facts)
    else:
        for one in rankings:
            _show(one)
    if left_out:
        raise typer.Exit(FOUND_WRONG)


def _prompts(paths: list[Path]) -> dict[str, str]:
    """By name. Raises typer.BadParameter."""
    found: dict[str, str] = {}
    for path in paths:
        files = sorted(one for one in path.iterdir() if one.suffix in (".txt", ".md")) if path.is_dir() else [path]
        if not files:
            raise typer.BadParameter(f"there is no *.txt or *.md in {path}", param_hint="--prompts")
        for file in files:
            if file.stem in (OWN, NONE) or file.stem in found:
                raise typer.BadParameter(f"two prompts are named {file.stem}", param_hint="--prompts")
            try:
                text = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise typer.BadParameter(f"{file}: {error}", param_hint="--prompts") from None
            if not text:
                raise typer.BadParameter(f"{file} is empty; `{NONE}` is tried anyway", param_hint="--prompts")
            found[file.stem] = text
    return found


def _steps(
    policy: CompiledPolicy, of_customers: Mapping[str, list[Case]], provider: str | None
) -> tuple[dict[str, ProviderStep], dict[str, str]]:
    """Which step is to be tried for whom, and why nothing is for the others."""
    from gateway.cli.eval.provider_path import hosted_step

    steps: dict[str, ProviderStep] = {}
    left_out: dict[str, str] = {}
    for name in of_customers:
        customer: CustomerPolicy | None = policy.customers.get(name)
        found = "the policies have no such customer" if customer is None else hosted_step(customer, provider)
        if isinstance(found, str):
            left_out[name] = found
        else:
            steps[name] = found
    return steps, left_out


class _Asking:
    """All that is to be asked, and what comes of it."""

    def __init__(
        self,
        policy: CompiledPolicy,
        steps: Mapping[str, ProviderStep],
        texts: Mapping[str, str],
        cases: list[Case],
        sampling: Sampling,
    ) -> None:
        self._policy = policy
        self._steps = steps
        self._texts = texts
        self._cases = cases
        self._sampling = sampling
        self._names = [OWN, NONE, *texts]

    def plan(self, sets: str) -> dict[str, Any]:
        """For the run's folder."""
        return {
            "kind": "tune",
            "digest": sets,
            "prompts": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self._texts.items()},
            "steps": {
                name: {
                    "provider": step.provider.name,
                    "api_base": step.provider.api_base,
                    "model": step.model,
                    "system_prompt": step.system_prompt,
                    "drop": sorted(step.drop),
                }
                for name, step in self._steps.items()
            },
            "sampling": self._sampling.as_json(),
            "began": datetime.fromtimestamp(wall_s(), UTC).isoformat(timespec="seconds"),
        }

    async def through(self, folder: RunFolder, concurrency: int, timeout_s: float, *, quiet: bool) -> None:
        """Ask what has no answer yet. Raises Lost."""
        from gateway.cli.eval.provider_path import provider_path

        allowed = min(step.provider.max_concurrency for step in self._steps.values())
        asked = replace(self._policy, customers={name: self._policy.customers[name] for name in self._steps})
        async with provider_path(asked, timeout_s=timeout_s) as path:

            def ask(key: Key, case: Case) -> Awaitable[Said]:
                step = self._steps[case.customer]
                model = min(self._policy.customers[case.customer].adapters, default=step.model)
                return path.ask(step, self._text(key[0], step), self._sampling.body(case, model, key[3]))

            await ask_the_rest(
                folder,
                self._tried(),
                self._cases,
                self._sampling.samples,
                ask,
                concurrency=min(concurrency, allowed),
                quiet=quiet,
            )

    def rankings(self, answers: Mapping[Key, Said], *, enum_case: bool) -> list[Ranking]:
        """Of each customer. A policy without a prompt of its own is the same as none, which then is not tried twice."""
        found = []
        for name, cases in by_customer(self._cases).items():
            of_prompts = {
                prompt: judged(prompt, cases, self._sampling.samples, answers, enum_case=enum_case)
                for prompt in self._names
                if prompt != NONE or self._steps[name].system_prompt is not None
            }
            found.append(rank(name, of_prompts, OWN, seed=self._sampling.seed))
        return found

    def _tried(self) -> list[str]:
        own = any(step.system_prompt is not None for step in self._steps.values())
        return [name for name in self._names if name != NONE or own]

    def _text(self, prompt: str, step: ProviderStep) -> str | None:
        return step.system_prompt if prompt == OWN else self._texts.get(prompt)


def _show(ranking: Ranking) -> None:
    console = Console(emoji=False, highlight=False)
    headings = "system prompt", "right", "95 %", "points gained", "95 %", "p"
    print_stacked(console, headings, [Row(_cells(one)) for one in ranking.prompts], title=ranking.customer)
    best = ranking.best
    if best.prompt == OWN:
        line = "no prompt does better than the policy's own"
    elif ranking.proven:
        line = f"best: {best.prompt}, better than the policy's own beyond chance"
    else:
        line = f"best: {best.prompt}, but chance alone may do that with {best.scores.prompts} prompts"
    console.print(Text(line), soft_wrap=True)


def _cells(one: Ranked) -> list[str]:
    low, high = one.scores.interval
    gained = one.against
    # z: a gain of nothing is `0.0`, and not the `-0.0` that a loss of 0.0 turned round is.
    return [
        one.prompt,
        f"{100 * one.scores.right:.1f} %",
        f"{100 * low:.1f} – {100 * high:.1f}",
        "–" if gained is None else f"{-gained.drop_points:+z.1f}",
        "–" if gained is None else f"{-gained.interval[1]:z.1f} – {-gained.interval[0]:z.1f}",
        "–" if gained is None else p_value(gained.p),
    ]
