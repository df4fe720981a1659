"""`/v1/responses` and `/v1/messages` degraded by a provider that speaks neither, nor chat: there and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.policy.compiled import ProviderSpec, ProviderStep
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER
from tests.dataplane.test_responses_and_messages import CALLED, FINISHED, NO_BOX, PATH, TOOLS, heard, question
from tests.support.processes import Processes

MODEL = "claude-test-1"
TOKENS = 6


@pytest.mark.timeout(120)
@PATH
async def test_through_litellm_it_is_the_same_answer(
    serve: ServePlane, session_processes: Processes, path: str
) -> None:
    claude = session_processes.provider(
        name=f"claude-{path[4:]}", dialect="anthropic", api_key="sk-claude", tokens=TOKENS
    )
    await claude.ready()
    spec = ProviderSpec("claude", f"anthropic/{MODEL}", claude.url, "sk-claude")
    plane = await serve([NO_BOX], ProviderStep(spec, spec.model, system_prompt="As Acme."))
    litellm = plane.providers.litellm
    assert litellm is not None
    async with asyncio.timeout(60):
        while not litellm.alive:  # noqa: ASYNC110  # a process that starts
            await asyncio.sleep(0.05)

    async def ask(**fields: Any) -> Any:
        return heard(path, await plane.raw().ask(path, question(path, **fields), timeout_s=60))

    for stream in (False, True):
        said = await ask(stream=stream)
        assert said.text == f"generic: 0 1 2 3 end/{TOKENS - 2}"
        assert said.reason == FINISHED[path]
        assert said.degraded is not None
        assert (said.degraded["served_by"], said.degraded["requested_model"]) == ("provider:claude", ADAPTER)
        called = await ask(stream=stream, **TOOLS[path])
        ((name, arguments),) = called.calls
        assert (name, called.reason) == ("look_up", CALLED[path])
        assert arguments["answered_by"] == "generic"
    sent = [entry["body"] for entry in claude.admin.requests(path="/v1/messages")]
    assert len(sent) == 4
    assert all("As Acme." in str(body["system"]) for body in sent)
    assert [body["messages"][-1]["role"] for body in sent] == ["user"] * 4
