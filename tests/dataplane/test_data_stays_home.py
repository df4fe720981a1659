"""`hosted: {allowed: false}`: no request of such a customer reaches a provider, whatever is written or breaks.

``WAYS`` are all ways on which a request, or one that is made up for it, may come to be sent somewhere. A new one is one
more function here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.decide import Plan, decide
from gateway.dataplane.explain import explain
from gateway.dataplane.journey import Journey, Wait
from gateway.dataplane.request import Request, parse_request
from gateway.errors import (
    Aborted,
    ConnectError,
    ConnectionLost,
    ErrorFrame,
    NotAdmitted,
    PoolExhausted,
    ProtocolError,
    Reason,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy import models
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy
from gateway.policy.policy_set import PolicySet
from gateway.upstream.provider_request import Endpoint, unsuited
from gateway.upstream.providers import Providers
from tests.dataplane.test_journey import FakeBox, FakeProviders

Draw = Callable[[st.SearchStrategy[Any]], Any]
Way = Callable[[CustomerPolicy, CompiledPolicy, Draw], Iterator[str]]
"""Gives the kind of each target that a customer's request is sent to."""

VERSIONS = ("acme_v3", "acme_v4")

# What ops write.

provider_steps = st.builds(
    models.ProviderStep,
    provider=st.sampled_from(["direct", "litellm"]),
    model=st.sampled_from([None, "openai/other", "anthropic/other"]),
    system_prompt=st.sampled_from([None, "As Acme."]),
)
steps = st.one_of(
    provider_steps,
    st.just(models.BaseStep(base=models.BaseOptions())),
    st.builds(models.StaticStep, static=st.just("later"), even_for_tools=st.booleans()),
)
fallbacks = st.none() | st.lists(steps, max_size=4)
hosted = st.none() | st.builds(
    models.Hosted, allowed=st.booleans(), usd_per_day=st.none() | st.floats(0, 100, allow_nan=False)
)
FLEET = models.FleetFile(
    fleets={
        "main": models.Fleet(
            base_model="base", boxes={name: models.Box(url=f"http://{name}:8000") for name in ("a", "b", "c")}
        )
    },
    providers={
        "direct": models.Provider(model="openai/generic"),
        "litellm": models.Provider(model="anthropic/generic"),
        "hosted": models.Provider(model="openai/built-in"),
    },
)


def written(
    default: list[models.Step] | None,
    default_hosted: models.Hosted | None,
    own: list[models.Step] | None,
    own_hosted: models.Hosted | None,
    **more: Any,
) -> tuple[CompiledPolicy, bool]:
    """As compiled, and whether the customer may reach providers as the design has it: whole keys replace whole keys."""
    customer = models.CustomerFile(
        customer="acme",
        api_keys=[],
        adapters=list(VERSIONS),
        aliases={"acme": {"acme_v3": 1, "acme_v4": 1}},
        fallback=own,
        hosted=own_hosted,
        **more,
    )
    policy_set = PolicySet(FLEET, models.Rules(fallback=default, hosted=default_hosted), (customer,))
    in_force = own_hosted or default_hosted
    compiled = compile_policy(policy_set, version=1, store_id="s", created_s=0, env={})
    return compiled, in_force is None or in_force.allowed


policies = st.builds(
    written,
    fallbacks,
    hosted,
    fallbacks,
    hosted,
    priority=st.sampled_from([None, "high", "low"]),
    deadline=st.sampled_from([None, "1s", "60s"]),
)

# What clients send, and what becomes of it.

MODELS = st.sampled_from([*VERSIONS, "acme"])
HELLO = [{"role": "user", "content": "hello"}]
bodies: dict[Endpoint, st.SearchStrategy[dict[str, Any]]] = {
    "chat": st.fixed_dictionaries(
        {"model": MODELS, "messages": st.just(HELLO)},
        optional={
            "stream": st.booleans(),
            "n": st.integers(1, 2),
            "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
            "response_format": st.just({"type": "json_object"}),
            "structured_outputs": st.just({"regex": "a+"}),
            "continue_final_message": st.just(True),
        },
    ),
    "completions": st.fixed_dictionaries(
        {"model": MODELS, "prompt": st.just("hello")}, optional={"stream": st.booleans()}
    ),
    "responses": st.fixed_dictionaries(
        {"model": MODELS, "input": st.just("hello") | st.just(HELLO)},
        optional={
            "stream": st.booleans(),
            "tools": st.just([{"type": "function", "name": "f"}]) | st.just([{"type": "web_search"}]),
            "text": st.just({"format": {"type": "json_object"}}),
        },
    ),
    "messages": st.fixed_dictionaries(
        {"model": MODELS, "messages": st.just(HELLO), "max_tokens": st.just(9)},
        optional={"stream": st.booleans(), "tools": st.just([{"name": "f", "input_schema": {}}])},
    ),
    "embeddings": st.fixed_dictionaries(
        {"model": MODELS, "input": st.just("hello")}, optional={"stream": st.booleans()}
    ),
}
outcomes = st.sampled_from(
    [
        ConnectError("refused"),
        ConnectionLost("reset"),
        UpstreamTimeout("silent"),
        ProtocolError("garbage"),
        Aborted("aborted"),
        ErrorFrame("broken", status=500),
        NotAdmitted("its trial is taken"),
        PoolExhausted("no connection"),
        *(UpstreamStatus(status) for status in (404, 429, 500, 503)),
    ]
)
conditions = st.sampled_from([None, None, Reason.CIRCUIT_OPEN, Reason.ADAPTER_UNAVAILABLE])
views = st.builds(
    FakeBox,
    st.just("a"),
    down=conditions,
    base_down=conditions,
    fails_fast=st.booleans(),
    in_ramp=st.booleans(),
    ttft_s=st.sampled_from([0.0, 100.0]),
)
shut = st.dictionaries(st.sampled_from(["direct", "litellm", "hosted"]), st.just("circuit open"))
slow = st.frozensets(st.sampled_from(["direct", "litellm", "hosted"]))


def through_the_journey(customer: CustomerPolicy, compiled: CompiledPolicy, draw: Draw) -> Iterator[str]:
    """Decided and walked to its end: own boxes, versions, waits, steps, last resorts."""
    endpoint = draw(st.sampled_from(sorted(bodies)))
    yield from through_the_journey_of(endpoint, customer, draw)


def through_the_journey_of(endpoint: Endpoint, customer: CustomerPolicy, draw: Draw) -> Iterator[str]:
    """The same, of one endpoint."""
    body = draw(bodies[endpoint])
    request = parse_request(msgspec.json.encode(body), id="r", endpoint=endpoint, fallback_allowed=draw(st.booleans()))
    boxes = [replace(box, name=f"box-{i}") for i, box in enumerate(draw(st.lists(views, max_size=4)))]
    left = [name for name in VERSIONS if name != request.model] if request.model == "acme" else []

    def plan(now: float) -> Plan | None:
        if not left:
            return None
        return _plan(customer, boxes, request, left.pop(), now)

    first = _plan(customer, boxes, request, left.pop() if left else request.model, 0.0)
    way = Journey(
        first,
        customer,
        stream=request.stream,
        now=0.0,
        take_retry=lambda now: bool(draw(st.booleans())),
        unsuited=lambda step: unsuited(step, endpoint, request.fields),
        static_suits=lambda step: step.even_for_tools or not request.asks_for_structure,
        providers=FakeProviders(draw(shut), draw(slow)),
        other_version=plan if left else None,
    )
    now = 0.0
    while (attempt := way.next(now)) is not None:
        if isinstance(attempt, Wait):
            way.waited(draw(st.sampled_from([None, *attempt.boxes])))
            continue
        yield attempt.kind
        if attempt.kind == "static":
            return
        now += draw(st.sampled_from([0.0, 0.1, 5.0]))
        way.failed(attempt, draw(outcomes))


def _plan(customer: CustomerPolicy, boxes: list[FakeBox], request: Request, adapter: str, now: float) -> Plan:
    return decide(
        customer,
        boxes,
        adapter=adapter,
        stream=request.stream,
        fallback_allowed=request.fallback_allowed,
        now=now,
    )


def as_explained(customer: CustomerPolicy, compiled: CompiledPolicy, draw: Draw) -> Iterator[str]:
    """What people are shown is what would be done."""
    metrics, events = GatewayMetrics(Registry()), Events(100)
    alarms = Alarms(metrics, events)
    fleets = Fleets(metrics=metrics, alarms=alarms, events=events, probing=False)
    providers = Hosted(metrics=metrics, alarms=alarms, events=events)
    fleets.follow(compiled)
    providers.follow(compiled)
    for box in fleets.all():
        for adapter in VERSIONS:
            if (permit := box.admit(adapter, 0.0, streamed=True)) is not None:
                permit.failed(draw(outcomes), 0.0)
                permit.released()
    routes = {adapter: fleets.look("main", adapter) for adapter in VERSIONS}
    found = explain(
        customer,
        routes["acme_v3"],
        providers,
        adapter="acme_v3",
        others=[("acme_v4", routes["acme_v4"])] if draw(st.booleans()) else [],
        stream=draw(st.booleans()),
        retries_left=draw(st.integers(0, 3)),
        now=0.0,
    )
    yield from (attempt["kind"] for attempt in found["attempts"])


WAYS: dict[str, Way] = {"the journey": through_the_journey, "explain": as_explained}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@given(written=policies, data=st.data())
def test_no_provider_is_asked_for_a_customer_that_forbids_it(
    way: Way, written: tuple[CompiledPolicy, bool], data: st.DataObject
) -> None:
    compiled, allowed = written
    customer = compiled.customers["acme"]
    assert customer.hosted_allowed == allowed
    kinds = list(way(customer, compiled, data.draw))
    if not allowed:
        assert "provider" not in kinds


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_same_ways_do_lead_to_a_provider_where_it_is_allowed(way: Way) -> None:
    """Else the property above would say nothing."""
    seen: set[str] = set()

    @given(data=st.data())
    def walk(data: st.DataObject) -> None:
        compiled, _ = written([models.ProviderStep(provider="direct")], None, None, None)
        seen.update(way(compiled.customers["acme"], compiled, data.draw))

    walk()
    assert "provider" in seen


@pytest.mark.parametrize("endpoint", sorted(bodies.keys() - {"embeddings"}))
def test_each_endpoint_does_lead_to_a_provider_where_it_is_allowed(endpoint: Endpoint) -> None:
    seen: set[str] = set()

    @given(data=st.data())
    def walk(data: st.DataObject) -> None:
        compiled, _ = written([models.ProviderStep(provider="direct")], None, None, None)
        seen.update(through_the_journey_of(endpoint, compiled.customers["acme"], data.draw))

    walk()
    assert "provider" in seen


@given(written=policies, data=st.data())
def test_embeddings_are_made_by_the_own_adapter_alone_whatever_is_allowed(
    written: tuple[CompiledPolicy, bool], data: st.DataObject
) -> None:
    """Vectors of another model would corrupt the customer's index in silence."""
    customer = written[0].customers["acme"]
    assert set(through_the_journey_of("embeddings", customer, data.draw)) <= {"own"}


def test_a_policy_that_forbids_providers_and_has_a_step_that_asks_one_cannot_be_made() -> None:
    compiled, _ = written([models.ProviderStep(provider="direct")], None, None, None)
    with pytest.raises(ValueError, match="may not reach hosted providers"):
        replace(compiled.customers["acme"], hosted_allowed=False)


@pytest.mark.parametrize("step", [{"provider": "litellm"}, {"provider": "direct", "model": "anthropic/x"}])
def test_what_only_they_name_is_not_even_started(tmp_path: Path, step: dict[str, str]) -> None:
    metrics, events = GatewayMetrics(Registry()), Events(100)

    def refused(state_dir: Path, alarms: Alarms) -> Any:
        raise AssertionError("nobody may be asked by it")

    providers = Providers(state_dir=tmp_path, alarms=Alarms(metrics, events), new_litellm=refused)
    written_step = models.ProviderStep(**step)  # type: ignore[arg-type]
    compiled, _ = written([written_step], None, None, models.Hosted(allowed=False))
    providers.follow(compiled)
    allowed, _ = written([written_step], None, None, None)
    with pytest.raises(AssertionError, match="nobody may be asked"):
        providers.follow(allowed)
