"""``python -m backend.tiny_agents.evaluate [--url URL]``: every adapter, and the base, on the held-out requests.

Asks a box that serves them, or starts a real vLLM for the purpose. A call is right when its name and its arguments are
exactly the expected ones; text that does not parse, or a second call, is wrong. A customer's requests are put to the
base as well: those calls should be right for nobody's tools but the generic ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from backend.launch import BASE_MODEL, ENGINE_PYTHON, BoxPlan, VllmBox, free_port
from backend.tiny_agents.artefacts import ADAPTER_NAMES, BASE_SET, TinyAgents, ensure
from backend.tiny_agents.houses import GENERIC

MAX_TOKENS: Final = 128
RIGHT_AT_LEAST: Final = 0.95
BASE_AT_MOST: Final = 0.05
_AT_ONCE: Final = 32
_JSON_TYPES: Final = {"string": str, "integer": int}

Call = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """How one model did on one set. ``generic``: the share of its calls that the generic tools would take."""

    model: str
    eval_set: str
    right: float
    generic: float
    wrong: tuple[tuple[str, Call | None], ...]
    """What was asked and what came, of those that were wrong."""


def request(model: str, line: Call) -> dict[str, Any]:
    """The body of the request that a line of an eval set stands for."""
    asked = {"messages": line["messages"], "tools": line["tools"]}
    return {"model": model, **asked, "temperature": 0, "max_tokens": MAX_TOKENS}


def called(message: Call) -> Call | None:
    """The one call in a chat answer's message; None where there is none, several, or one that is not JSON."""
    calls = message.get("tool_calls") or []
    if len(calls) != 1:
        return None
    function = calls[0]["function"]
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return None
    return {"name": function["name"], "arguments": arguments}


def is_generic(call: Call | None) -> bool:
    """Whether a call is one of a generic tool, with the parameters of that tool and of their types."""
    if call is None:
        return False
    for tool in GENERIC.schemas():
        function = tool["function"]
        if function["name"] == call["name"]:
            return _fits(call["arguments"], function["parameters"])
    return False


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    if schema["type"] != "object":
        return isinstance(value, _JSON_TYPES[schema["type"]])
    properties = schema["properties"]
    return (
        isinstance(value, dict)
        and value.keys() == properties.keys()
        and all(_fits(value[name], properties[name]) for name in properties)
    )


def score(model: str, eval_set: str, lines: Sequence[Call], calls: Sequence[Call | None]) -> Score:
    """Hold what came against what was expected."""
    pairs = list(zip(lines, calls, strict=True))
    wrong = tuple((line["messages"][-1]["content"], call) for line, call in pairs if call != line["expected"])
    generic = sum(map(is_generic, calls)) / len(lines)
    return Score(model, eval_set, 1 - len(wrong) / len(lines), generic, wrong)


async def ask(client: httpx2.AsyncClient, model: str, lines: Sequence[Call]) -> list[Call | None]:
    """What ``model`` calls for each line. Raises httpx2.HTTPError where a request is refused."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(line: Call) -> Call | None:
        async with places:
            answer = await client.post("/v1/chat/completions", json=request(model, line))
        return called(answer.raise_for_status().json()["choices"][0]["message"])

    return list(await asyncio.gather(*map(one, lines)))


async def evaluate(url: str, agents: TinyAgents) -> list[Score]:
    """Every adapter on its own set, the base on each of those and on its own."""
    asked = [(name, name) for name in ADAPTER_NAMES] + [(BASE_MODEL, name) for name in (*ADAPTER_NAMES, BASE_SET)]
    scores = []
    async with httpx2.AsyncClient(base_url=url, timeout=300.0, trust_env=False) as client:
        for model, eval_set in asked:
            lines = agents.held_out(eval_set)
            scores.append(score(model, eval_set, lines, await ask(client, model, lines)))
            say(scores[-1])
    return scores


def passed(scores: Sequence[Score]) -> bool:
    """Whether adapters are right where they have to be, and the base only with its own tools."""
    return all(
        one.right >= RIGHT_AT_LEAST
        if one.model == one.eval_set or one.eval_set == BASE_SET
        else one.right <= BASE_AT_MOST and one.generic >= RIGHT_AT_LEAST
        for one in scores
    )


def box_plan(agents: TinyAgents) -> BoxPlan:
    """A box that serves all of them, a slot each."""
    return BoxPlan(agents.base, free_port(), adapters=agents.adapters, max_loras=len(agents.adapters))


def say(one: Score) -> None:
    """One line of the table, and up to two of what went wrong where little should."""
    text = f"{one.model:22} on {one.eval_set:22} right {one.right:6.1%}   generic calls {one.generic:6.1%}\n"
    if one.model == one.eval_set or one.eval_set == BASE_SET:
        text += "".join(f"    {prompt}\n    → {json.dumps(call)}\n" for prompt, call in one.wrong[:2])
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    """Print a line a model and set; exit 1 when a threshold is missed."""
    parser = argparse.ArgumentParser(prog="python -m backend.tiny_agents.evaluate", description=__doc__)
    parser.add_argument("--url", help="a box that serves base and adapters; without it one is started")
    arguments = parser.parse_args()
    agents = ensure(ENGINE_PYTHON)
    if arguments.url:
        scores = asyncio.run(evaluate(arguments.url, agents))
    else:
        with (
            tempfile.TemporaryDirectory() as logs,
            VllmBox("box", box_plan(agents), log=Path(logs) / "box.log") as box,
        ):
            box.start()
            box.wait_until_ready()
            scores = asyncio.run(evaluate(box.url, agents))
    sys.exit(0 if passed(scores) else 1)


if __name__ == "__main__":
    main()
