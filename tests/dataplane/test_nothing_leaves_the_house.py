"""What a request holds stays with the boxes: no provider gets it that may not, and no log, event or alarm says it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.control import documents
from gateway.control.sources import ControlSources
from gateway.drills.desk import DrillDesk
from gateway.drills.keeper import DrillKeeper
from gateway.observe.log import HumanFormatter, JsonFormatter
from gateway.orders.keeper import OrderKeeper
from gateway.policy import models
from gateway.policy.audit_log import AuditLog
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.policy_set import PolicySet
from gateway.scores.keeper import ScoreKeeper
from tests.cli.served import digest
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER, KEY, NEXT_ADAPTER, OTHER_KEY, OTHERS_ADAPTER, PROVIDER_KEY, Plane
from tests.support.processes import Simulator
from tests.support.raw_client import Recording

HOME, FREE = "stays at home 7f3a", "may travel 91cc"
"""What the two customers say: the one that forbids providers, and the one that does not."""

NOBODY = ["http://127.0.0.1:9", "http://127.0.0.1:7"]
"""Where nothing listens."""

TESTS_OWN = ("httpx", "httpcore")
"""Loggers of the client that tells simulators what to do."""

BROKEN: dict[str, dict[str, Any]] = {
    "full": {"fault": "status", "status": 503, "message": f"The engine is currently busy with {HOME}"},
    "over its limit": {"fault": "status", "status": 429},
    "failing, and quoting the request": {"fault": "status", "status": 500, "message": f"cannot answer {HOME} {FREE}"},
    "refusing us": {"fault": "status", "status": 401},
    "without the adapter": {"fault": "adapter_missing"},
    "silent": {"fault": "hang_before_headers"},
    "silent behind the role": {"fault": "role_only_then_silence"},
    "reset": {"fault": "reset_before_headers"},
    "cut": {"fault": "close_before_headers"},
    "HTML": {"fault": "html_200"},
    "garbage": {"fault": "garbage"},
    "an error first, that quotes the request": {"fault": "error_frame_first", "message": f"no: {HOME} {FREE}"},
    "an error in the middle, that quotes the request": {"fault": "error_frame_mid", "message": f"no: {HOME} {FREE}"},
    "an abort": {"fault": "abort", "after_chunks": 0},
    "a broken stream": {"fault": "reset_mid_stream"},
}


def policy(boxes: list[str], hosted: str) -> CompiledPolicy:
    """Both customers fall back to the provider as the YAML has it, and one may not."""
    provider = models.ProviderStep(provider="hosted")
    fleet = models.FleetFile(
        fleets={
            "main": models.Fleet(
                base_model="base", boxes={name: models.Box(url=url) for name, url in zip("ab", boxes, strict=True)}
            )
        },
        providers={
            "hosted": models.Provider(model="openai/generic-mini", api_base=f"{hosted}/v1", api_key="${HOSTED_KEY}")
        },
    )
    defaults = models.Rules(
        ttft_budget="150ms", plain_budget="400ms", deadline="900ms", stall_timeout="300ms", fallback=[provider]
    )  # type: ignore[arg-type]

    def customer(name: str, key: str, adapters: list[str], **more: Any) -> models.CustomerFile:
        return models.CustomerFile(customer=name, api_keys=[digest(key)], adapters=adapters, **more)

    home = customer(
        "acme",
        KEY,
        [ADAPTER, NEXT_ADAPTER],
        aliases={"acme": {ADAPTER: 1, NEXT_ADAPTER: 1}},
        hosted=models.Hosted(allowed=False),
        fallback=[
            models.ProviderStep(provider="hosted", model="openai/other-mini"),
            models.BaseStep(base=models.BaseOptions()),
            provider,
            models.StaticStep(static="later"),
        ],
    )
    policy_set = PolicySet(fleet, defaults, (home, customer("globex", OTHER_KEY, [OTHERS_ADAPTER])))
    return compile_policy(policy_set, version=1, store_id="s", created_s=0, env={"HOSTED_KEY": PROVIDER_KEY})


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def malformed() -> bytes:
    body = f'{{"model": "{ADAPTER}", "messages": [{HOME}'.encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def ask_all(plane: Plane) -> list[Recording]:
    """Each kind of request of both customers, all at once."""
    home, free = plane.raw(KEY), plane.raw(OTHER_KEY)
    asks = []
    for stream in (True, False):
        said = [{"role": "user", "content": HOME}]
        tools = [{"type": "function", "function": {"name": HOME, "parameters": {}}}]
        asks += [home.chat(model, text=HOME, stream=stream) for model in (ADAPTER, "acme", "unknown")]
        asks += [
            home.chat("acme", text=HOME, stream=stream, tools=tools, user=HOME),
            home.chat("acme", text=HOME, stream=stream, headers={"x-failsoft-fallback": "never"}),
            home.chat("acme", text=HOME, stream=stream, messages=HOME),
            home.ask("/v1/completions", {"model": ADAPTER, "prompt": HOME, "stream": stream}),
            home.ask("/v1/completions", {"model": ADAPTER, "prompt": [HOME, {HOME: 1}], "stream": HOME}),
            home.ask("/v1/responses", {"model": "acme", "input": HOME, "instructions": HOME, "stream": stream}),
            home.ask("/v1/responses", {"model": ADAPTER, "input": {HOME: 1}, "stream": stream}),
            home.ask("/v1/messages", {"model": ADAPTER, "messages": said, "max_tokens": 50, "stream": stream}),
            home.ask("/v1/messages", {"model": "acme", "messages": HOME, "max_tokens": HOME, "stream": stream}),
            home.ask("/v1/embeddings", {"model": ADAPTER, "input": [HOME, HOME]}),
            home.ask("", raw=malformed()),
            free.chat(OTHERS_ADAPTER, text=FREE, stream=stream),
        ]
    return await asyncio.gather(*asks)


def ignore(*counted: float) -> None:
    """Nobody looks at the audit log here."""


def known(plane: Plane) -> str:
    """All that the gateway says of itself."""
    sources = ControlSources(
        policies=plane,
        fleets=plane.fleets,
        hosted=plane.hosted,
        registry=plane.registry,
        alarms=plane.alarms,
        events=plane.events,
        explain=plane.dataplane.explain,
        orders=OrderKeeper(metrics=plane.metrics, alarms=plane.alarms, events=plane.events),
        drills=DrillDesk(DrillKeeper(plane, metrics=plane.metrics, alarms=plane.alarms, events=plane.events)),
        audit=AuditLog(
            lambda: "unix:///nowhere", alarms=plane.alarms, waiting=ignore, dropped=ignore, clock=time.monotonic
        ),
        scores=ScoreKeeper(plane.metrics, lambda: plane.current.customers),
        admin_token=None,
    )
    return json.dumps(
        {
            "status": documents.status(sources),
            "customers": documents.customers(plane.current),
            "events": [event.as_json() for event in plane.events.since(0)],
            "metrics": plane.registry.render().decode(),
        }
    )


@pytest.mark.parametrize("how", [*BROKEN, "killed"])
async def test_while_boxes_break_no_provider_hears_of_it_and_no_log_quotes_it(
    serve: ServePlane,
    boxes: list[Simulator],
    hosted: Simulator,
    everything_logged: pytest.LogCaptureFixture,
    how: str,
) -> None:
    for box in boxes:
        if how != "killed":
            box.admin.faults(BROKEN[how])
    urls = NOBODY if how == "killed" else [box.url for box in boxes]
    plane = await serve(policy=policy(urls, hosted.url))
    answers = await ask_all(plane)
    answers += await ask_all(plane)  # breakers are open by now, or adapters known to be missing
    assert {answer.end for answer in answers} == {"complete"}

    travelled = hosted.admin.requests()
    assert HOME not in json.dumps(travelled)
    assert all(one["body"]["messages"][-1]["content"] == FREE for one in travelled)
    if how not in ("a broken stream", "an error in the middle, that quotes the request"):
        # The other customer's did: it was not for want of a provider.
        assert travelled

    assert_nothing_is_quoted(plane, everything_logged)


@pytest.mark.parametrize("fault", ["status", "error_frame_first", "error_frame_mid"])
async def test_what_a_provider_quotes_when_it_fails_is_in_no_log_either(
    serve: ServePlane,
    boxes: list[Simulator],
    hosted: Simulator,
    everything_logged: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    for box in boxes:
        box.admin.faults(BROKEN["failing, and quoting the request"])
    hosted.admin.fault(fault, status=500, message=f"policy violation: {FREE}")
    plane = await serve(policy=policy([box.url for box in boxes], hosted.url))
    for _ in range(4):
        await ask_all(plane)
    assert hosted.admin.requests()
    assert plane.hosted.all()["hosted"].last_error
    assert_nothing_is_quoted(plane, everything_logged)


def assert_nothing_is_quoted(plane: Plane, logged: pytest.LogCaptureFixture) -> None:
    said = known(plane)
    for record in logged.records:
        if not record.name.startswith(TESTS_OWN):
            said += JsonFormatter().format(record) + HumanFormatter().format(record) + repr(record.__dict__)
    assert "policy_version" in said
    for words in (HOME, FREE):
        assert words not in said
