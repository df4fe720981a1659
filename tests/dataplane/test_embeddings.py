"""`/v1/embeddings`: of the customer's own boxes or not at all."""

from __future__ import annotations

import base64
import math
import re
import struct
from dataclasses import replace
from typing import Any

import openai
import pytest

from backend.simulator.vllm_embeddings import vector
from gateway.orders.forced import Forced
from gateway.policy.alias import Alias
from gateway.policy.compiled import BaseStep, StaticStep
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, NEXT_ADAPTER, compiled, provider_step
from tests.dataplane.scripted_box import whole
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import Recording

PATH = "/v1/embeddings"
NO_BOX = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def embedders(session_processes: Processes) -> list[Simulator]:
    """Two boxes that make embeddings."""
    started = [
        session_processes.box(name=name, adapters=[ADAPTER, NEXT_ADAPTER], embeddings=True) for name in ("e", "f")
    ]
    for box in started:
        box.wait_ready()
    return started


@pytest.fixture
def makers(embedders: list[Simulator]) -> list[Simulator]:
    """The same, without faults and with empty journals."""
    for box in embedders:
        box.admin.heal()
        box.admin.forget()
    return embedders


def vectors(answer: Recording) -> list[Any]:
    assert (answer.status, answer.end) == (200, "complete")
    return [item["embedding"] for item in answer.json()["data"]]


@pytest.mark.parametrize("given", ["hello", ["hello"], ["hello", "goodbye"], [1, 2, 3], [[1, 2], [3]]])
async def test_a_box_answers_with_a_vector_of_each_input(
    serve: ServePlane, makers: list[Simulator], given: Any
) -> None:
    plane = await serve(makers, StaticStep("later"))
    answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": given})
    items = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    assert vectors(answer) == [vector(ADAPTER, item) for item in items]
    assert b"degraded" not in answer.body
    cell = plane.dataplane._books._accounts.usage.cell("acme", "own", "none")
    assert (cell[0], cell[1], cell[2]) == (1, answer.json()["usage"]["prompt_tokens"], 0)


async def test_the_sdk_gets_its_base64(serve: ServePlane, makers: list[Simulator]) -> None:
    plane = await serve(makers)
    found = await plane.sdk().embeddings.create(model=ADAPTER, input=["hello"])
    assert found.data[0].embedding == pytest.approx(vector(ADAPTER, "hello"))
    raw = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "hello", "encoding_format": "base64"})
    (encoded,) = vectors(raw)
    assert list(struct.unpack("<4f", base64.b64decode(encoded))) == pytest.approx(vector(ADAPTER, "hello"))


@pytest.mark.parametrize(
    "fault", ["reset_before_headers", "status", "adapter_missing", "truncate", "html_200", "empty_200"]
)
async def test_the_other_box_makes_good_what_one_fails(serve: ServePlane, makers: list[Simulator], fault: str) -> None:
    plane = await serve(makers)
    makers[0].admin.fault(fault)
    for _ in range(2):
        answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "hello"})
        assert vectors(answer) == [vector(ADAPTER, "hello")]


async def test_nobody_else_makes_them(serve: ServePlane, makers: list[Simulator], hosted: Simulator) -> None:
    """Neither provider nor base nor fixed text, by failure or by order: another model's would corrupt the index."""
    steps = (provider_step(hosted.url), BaseStep(), StaticStep("later", even_for_tools=True))
    plane = await serve(makers, *steps)
    for box in makers:
        box.admin.fault("status", status=500, adapter=ADAPTER)
    answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "hello"})
    assert answer.status == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert hosted.admin.requests() == []
    assert {entry["model"] for box in makers for entry in box.admin.requests(path=PATH)} == {ADAPTER}


async def test_an_adapter_that_is_kept_off_the_boxes_is_said_to_be_with_the_time_that_it_takes(
    serve: ServePlane, makers: list[Simulator]
) -> None:
    """Both boxes ended while it was asked for, so that it is asked for nowhere for a while."""
    plane = await serve(makers)
    for box in makers:
        box.admin.fault("reset_before_headers")
    for _ in range(20):
        answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "hello"})
        assert answer.status == 503
        if answer.headers["x-failsoft-attempts"] == "0":
            break
    message = answer.json()["error"]["message"]
    assert "could be asked" not in message
    said = re.search(r"the adapter is kept off the boxes for (\d+) s, as boxes ended while it was asked for", message)
    assert said is not None, message
    assert answer.headers["retry-after"] == said[1]
    assert 1 <= int(said[1]) <= 12


async def test_an_order_degrades_no_embeddings(serve: ServePlane, makers: list[Simulator], hosted: Simulator) -> None:
    forced = Forced()
    plane = await serve(makers, provider_step(hosted.url), options={"forced": forced})
    forced.ends = {"acme": math.inf}
    assert (await plane.raw().chat(ADAPTER, stream=False)).headers["x-failsoft-served-by"] == "provider:hosted"
    answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "hello"})
    assert vectors(answer) == [vector(ADAPTER, "hello")]


async def test_what_no_box_serves_is_said_and_is_no_missing_adapter(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    plane = await serve(boxes, provider_step(hosted.url))
    with pytest.raises(openai.NotFoundError, match="do not serve"):
        await plane.sdk().embeddings.create(model=ADAPTER, input="hello")
    assert hosted.admin.requests() == []
    assert (await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"].startswith("box:")


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"list","data":[],"model":"acme_v3"}',
        b'{"object":"list","data":[{"embedding":[0.5]}],"model":"acme_v3"}',
        b'{"object":"list","data":[{"embedding":[0.5]},{"embedding":null}],"model":"acme_v3"}',
        b'{"error":{"message":"broken","code":500}}',
    ],
)
async def test_too_few_vectors_are_no_answer(serve: ServePlane, scripted: StartScripted, body: bytes) -> None:
    box = await scripted(*[whole(body)] * 3)
    plane = await serve([box])
    answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": ["hello", "goodbye"]})
    assert answer.status == 503


async def test_a_split_alias_has_one_adapter_make_all_of_them(serve: ServePlane, makers: list[Simulator]) -> None:
    policy = compiled([box.url for box in makers])
    alias = Alias.of("acme", "acme", {ADAPTER: 60, NEXT_ADAPTER: 40})
    acme = replace(policy.customers["acme"], adapters=frozenset({ADAPTER, NEXT_ADAPTER}), aliases={"acme": alias})
    keys = {
        digest: replace(key, customer=acme) if key.customer.name == "acme" else key
        for digest, key in policy.keys.items()
    }
    plane = await serve(policy=replace(policy, customers={**policy.customers, "acme": acme}, keys=keys))
    for number in range(20):
        answer = await plane.raw().ask(PATH, {"model": "acme", "input": f"text {number}"})
        assert vectors(answer) == [vector(ADAPTER, f"text {number}")]
    for box in makers:
        box.admin.fault("adapter_missing", adapter=ADAPTER)
    assert (await plane.raw().ask(PATH, {"model": "acme", "input": "hello"})).status == 503


async def test_a_form_that_cannot_be_checked_is_refused(serve: ServePlane) -> None:
    plane = await serve([NO_BOX])
    answer = await plane.raw().ask(PATH, {"model": ADAPTER, "input": "x", "encoding_format": "bytes"})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "encoding_format")
