"""`failsoft eval run`: asks two paths the same prompts, and holds the candidate up where a customer loses by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from backend.evalgate.case import Case, by_customer, digest
from backend.evalgate.client import Client, Question, Unanswered
from backend.evalgate.endpoint import BadEndpoint, headers, key_of, read_path
from backend.evalgate.endpoint import Path as ServingPath
from backend.evalgate.folder import Key, RunFolder
from backend.evalgate.gate import Judges
from backend.evalgate.result import BASELINE, CANDIDATE
from backend.evalgate.run import Lost
from backend.evalgate.sampling import Sampling
from gateway.cli.admin_client import DEFAULT_URL, Url
from gateway.cli.eval.asking import ask_the_rest, trouble_told
from gateway.cli.eval.publish import publish_scores
from gateway.cli.eval.report import of_folder, publish_files, tell
from gateway.cli.eval.terms import (
    EnumCase,
    EnumCaseOption,
    GateOption,
    HtmlOption,
    JsonOption,
    JudgeOption,
    JunitOption,
    Sets,
    cases_of,
    gate_of,
    set_files,
)
from gateway.cli.exit_codes import MISUSE
from gateway.cli.speech import failure
from gateway.clock import wall_s

_ENDPOINT = (
    "URL#MODEL, or CUSTOMER=URL#MODEL for one customer; repeatable. MODEL may hold {customer} and {model} (the "
    "set's own); without it, it is the set's."
)


def run(
    sets: Sets,
    baseline: Annotated[list[str], typer.Option(metavar="ENDPOINT", help=_ENDPOINT)],
    candidate: Annotated[list[str], typer.Option(metavar="ENDPOINT", help="What may take its place; likewise.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", file_okay=False, help="The run's folder; a run that was cut off goes on there."),
    ],
    degraded: Annotated[
        bool,
        typer.Option("--degraded", help="The candidate is a gateway's fallback: needs FAILSOFT_ADMIN_TOKEN, no gate."),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Prompts at once.")] = 8,
    samples: Annotated[int, typer.Option(min=1, help="Answers a prompt; several need --temperature.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 1024,
    stream: Annotated[bool, typer.Option("--stream", help="Ask for streams, as most agents do.")] = False,
    seed: Annotated[int, typer.Option(help="Of the samples and of the bootstrap.")] = 0,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for a whole answer.")] = 120.0,
    enum_case: EnumCaseOption = EnumCase.MATCH,
    gate: GateOption = None,
    judge: JudgeOption = Judges.MEASURED,
    junit_file: JunitOption = None,
    html: HtmlOption = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Have the gateway at --url show the scores, as `eval publish` does.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Compare two paths on the same prompts: tool names, arguments as JSON, both, and calls that must not be made.

    Each customer is judged by itself: none may lose more than the gate's points. Keys come from the environment:
    FAILSOFT_EVAL_BASELINE_KEY and FAILSOFT_EVAL_CANDIDATE_KEY, with _CUSTOMER behind it for one customer's own. Without
    --degraded a gateway is asked for the own adapter's answers only. Exits with 0 where the gate passes, 1 where it
    trips, 2 on misuse, 3 where an endpoint gives no answers; the same command then goes on where it was.
    """
    decided = gate_of(gate, judge, degraded=degraded)
    files = set_files(sets)
    cases = cases_of(files)
    admin_token = os.environ.get("FAILSOFT_ADMIN_TOKEN", "")
    if degraded and not admin_token:
        raise failure("--degraded needs an admin token with the scope write in FAILSOFT_ADMIN_TOKEN", MISUSE)
    try:
        sampling = Sampling(samples, temperature, max_tokens, seed, stream)
        paths = read_path("baseline", baseline), read_path("candidate", candidate, degraded=degraded)
        for path in paths:
            for case in cases:
                path.endpoint(case.customer).model_for(case)
    except ValueError as error:
        raise failure(str(error), MISUSE) from None
    plan = {
        "kind": "run",
        "digest": digest(files),
        BASELINE: paths[0].as_json(),
        CANDIDATE: paths[1].as_json(),
        "sampling": sampling.as_json(),
        "began": datetime.fromtimestamp(wall_s(), UTC).isoformat(timespec="seconds"),
    }
    asking = _Asking(paths, cases, sampling, admin_token)
    try:
        with trouble_told(out), RunFolder(out) as folder:
            asyncio.run(_through(asking, folder, plan, files, concurrency, timeout_s, quiet=as_json))
    except BadEndpoint as error:
        raise failure(str(error), MISUSE) from None
    found = of_folder(out, plan, cases, gate=decided, enum_case=enum_case is EnumCase.MATCH)
    publish_files(out, found, junit_file=junit_file, html=html)
    if publish:
        publish_scores(found, url)
    tell(found, as_json=as_json)


class _Asking:
    """From a key to an answer."""

    def __init__(self, paths: tuple[ServingPath, ...], cases: list[Case], sampling: Sampling, admin_token: str) -> None:
        self.paths = {str(path.side): path for path in paths}
        self.cases = cases
        self.sampling = sampling
        self._admin_token = admin_token

    def question(self, key: Key, case: Case) -> Question:
        path = self.paths[key[0]]
        endpoint = path.endpoint(case.customer)
        body = self.sampling.body(case, endpoint.model_for(case), key[3])
        return Question(endpoint.url, self.headers(path, case.customer), body, path.degraded)

    def headers(self, path: ServingPath, customer: str) -> dict[str, str]:
        return headers(path, key_of(path.side, customer, os.environ), self._admin_token)

    async def served(self, client: Client) -> dict[str, Any]:
        """What each customer's endpoint says that its model is, as far as it does. Raises Unanswered."""
        found: dict[str, Any] = {}
        known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for name, path in self.paths.items():
            for customer, cases in by_customer(self.cases).items():
                endpoint, head = path.endpoint(customer), self.headers(path, customer)
                asked = endpoint.url, head.get("authorization", "")
                if asked not in known:
                    known[asked] = await client.models(endpoint.url, head)
                models = sorted({endpoint.model_for(case) for case in cases})
                found.setdefault(name, {})[customer] = {model: known[asked].get(model) for model in models}
        return found


async def _through(
    asking: _Asking,
    folder: RunFolder,
    plan: dict[str, Any],
    files: Any,
    concurrency: int,
    timeout_s: float,
    *,
    quiet: bool,
) -> None:
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx2.AsyncClient(timeout=timeout_s, limits=limits) as http:
        client = Client(http)
        try:
            served = await asking.served(client)
        except Unanswered as error:
            raise Lost(str(error)) from None
        folder.begin({**plan, "served": served}, files)
        await ask_the_rest(
            folder,
            asking.paths,
            asking.cases,
            asking.sampling.samples,
            lambda key, case: client.ask(asking.question(key, case)),
            concurrency=concurrency,
            quiet=quiet,
        )
