"""`failsoft eval publish`: has gateways show how good customers' own answers are, and how good degraded ones."""

from __future__ import annotations

from typing import Any

from backend.evalgate.result import Result
from gateway.cli.admin_client import DEFAULT_URL, AdminClient, Url
from gateway.cli.eval.report import RunFolderArgument, of_folder, read_run
from gateway.cli.eval.terms import EnumCase, EnumCaseOption
from gateway.cli.speech import say


def publish(folder: RunFolderArgument, enum_case: EnumCaseOption = EnumCase.MATCH, url: Url = DEFAULT_URL) -> None:
    """Have the gateways of the store behind --url show a run's scores, customer by customer.

    Of a run with --degraded the baseline is what customers' own adapters score, and the candidate what the fallback
    does; of any other, the candidate is their own. Shown by `failsoft status`, `failsoft explain`, the ops page and
    `failsoft_eval_score`. The admin token (scope write) is read from FAILSOFT_ADMIN_TOKEN.
    """
    plan, cases = read_run(folder)
    found = of_folder(folder, plan, cases, gate=None, enum_case=enum_case is EnumCase.MATCH)
    publish_scores(found, url)


def publish_scores(found: Result, url: str) -> None:
    """Raises typer.Exit: 1 where the gateway does not take them, 3 where there is none."""
    answer = AdminClient(url).post("/admin/scores", {"scores": scores_of(found)})
    taken = answer["taken"]
    say(f"published: {taken} score{'' if taken == 1 else 's'}")


def scores_of(found: Result) -> list[dict[str, Any]]:
    """What is published: of each customer and path the share of right answers, from how many prompts, by which sets."""
    degraded = found.plan["candidate"]["degraded"]
    digest = found.plan["digest"][:16]
    rows = []
    for one in found.customers:
        sides = [("own", one.baseline), ("degraded", one.candidate)] if degraded else [("own", one.candidate)]
        rows += [
            {
                "customer": one.customer,
                "path": path,
                "right": round(scores.right, 6),
                "low": round(scores.interval[0], 6),
                "high": round(scores.interval[1], 6),
                "prompts": scores.prompts,
                "sets": digest,
            }
            for path, scores in sides
        ]
    return rows
