"""Where a provider is asked, with which head, and what a policy change does to the connections."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConnectError, NotConfigured
from gateway.observe.alarms import Alarms
from gateway.policy.compiled import BaseStep, ProviderStep
from gateway.upstream.origin import Origin
from gateway.upstream.providers import CONNECT_TIMEOUT_S, UNAVAILABLE, Providers
from tests.providers import policies
from tests.providers.anthropic_api import AnthropicApi, status


@pytest.fixture
def alarms() -> Alarms:
    return policies.alarms()


@pytest.fixture
def providers(tmp_path: Path, alarms: Alarms) -> Providers:
    return Providers(state_dir=tmp_path, alarms=alarms)


def lines(head: bytes) -> list[str]:
    assert head.endswith(b"\r\n")
    assert not head.endswith(b"\r\n\r\n")
    return head.decode("ascii").split("\r\n")[:-1]


def test_openai_itself_is_asked_where_no_address_is_given(providers: Providers) -> None:
    call = providers.call(policies.step(), request_id="r-1")
    assert call.pool.origin == Origin.parse("https://api.openai.com/v1")
    assert call.pool.connect_timeout_s == CONNECT_TIMEOUT_S
    first, *headers = lines(call.head)
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert set(headers) == {
        "host: api.openai.com",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        "accept-encoding: identity",
        "user-agent: failsoft",
        "x-request-id: r-1",
        "authorization: Bearer sk-provider-1",
    }


def test_a_compatible_provider_is_asked_at_its_own_address(providers: Providers) -> None:
    call = providers.call(policies.step(api_base="http://127.0.0.1:9000/api/v1/"), request_id="r-1")
    assert lines(call.head)[:2] == ["POST /api/v1/chat/completions HTTP/1.1", "host: 127.0.0.1:9000"]


def test_a_provider_without_a_key_is_asked_without_one(providers: Providers) -> None:
    spec = policies.provider(api_key=None)
    head = providers.call(ProviderStep(spec, spec.model), request_id="r-1").head
    assert b"authorization" not in head


def test_steps_at_one_address_share_its_connections(providers: Providers) -> None:
    one = providers.call(policies.step("openai/a"), request_id="1")
    two = providers.call(policies.step("openai/b"), request_id="2")
    assert one.pool is two.pool


def test_a_provider_whose_reference_is_not_set_cannot_be_asked_and_alarms(providers: Providers, alarms: Alarms) -> None:
    spec = policies.provider(unavailable="${OPENAI_API_KEY} is not set")
    step = ProviderStep(spec, spec.model)
    providers.follow(policies.compiled(step))
    with pytest.raises(NotConfigured, match="OPENAI_API_KEY"):
        providers.call(step, request_id="r-1")
    (alarm,) = alarms.current()
    assert (alarm.kind, alarm.subject) == (UNAVAILABLE, "hosted")
    assert "OPENAI_API_KEY" in alarm.message
    providers.follow(policies.compiled(policies.step()))
    assert alarms.current() == ()


def test_a_provider_with_a_broken_address_alarms_and_leaves_the_others_alone(
    providers: Providers, alarms: Alarms
) -> None:
    bad = ProviderStep(policies.provider(name="bad", api_base="ftp://x"), "openai/a")
    good = policies.step()
    providers.follow(policies.compiled(bad, good))
    assert [alarm.subject for alarm in alarms.current()] == ["bad"]
    with pytest.raises(NotConfigured):
        providers.call(bad, request_id="r-1")
    providers.call(good, request_id="r-1")


@pytest.mark.parametrize("key", ["sk-1\r\nx-evil: 1", "sk-1\n", "schlüssel"])
def test_a_key_that_is_no_header_value_never_gets_into_one(providers: Providers, key: str) -> None:
    spec = policies.provider(api_key=key)
    with pytest.raises(NotConfigured) as caught:
        providers.call(ProviderStep(spec, spec.model), request_id="r-1")
    assert key not in str(caught.value)


def test_a_step_that_needs_litellm_fails_at_once_while_its_worker_is_down(providers: Providers) -> None:
    with pytest.raises(ConnectError):
        providers.call(policies.step("anthropic/claude-x"), request_id="r-1")


def test_no_worker_is_started_for_policies_that_need_none(providers: Providers) -> None:
    unavailable = policies.provider("anthropic/claude-x", unavailable="${KEY} is not set")
    providers.follow(policies.compiled(policies.step(), BaseStep(), ProviderStep(unavailable, unavailable.model)))
    assert providers.litellm is None


async def test_connections_that_no_policy_names_any_more_are_let_go(providers: Providers) -> None:
    async with AnthropicApi() as server:
        server.script = status(200, {"answer": 1})
        step = policies.step(api_base=server.url)
        providers.follow(policies.compiled(step))
        call = providers.call(step, request_id="r-1")
        exchange = await call.pool.exchange(call.head, b"{}", asyncio.get_running_loop().time() + 5)
        providers.follow(policies.compiled(BaseStep()))
        assert await exchange.read_all(100) == b'{"answer": 1}'
        assert call.pool.open == 0
        assert providers.call(step, request_id="r-1").pool is not call.pool
        assert server.seen[0].headers["authorization"] == "Bearer sk-provider-1"
        await providers.close()


async def test_closing_aborts_what_still_runs_also_under_an_older_policy(providers: Providers) -> None:
    async with AnthropicApi() as server:
        server.script = status(200, {"a": "b" * (1 << 20)})
        step = policies.step(api_base=server.url)
        providers.follow(policies.compiled(step))
        call = providers.call(step, request_id="r-1")
        await call.pool.exchange(call.head, b"{}", asyncio.get_running_loop().time() + 5)
        providers.follow(policies.compiled(BaseStep()))
        await providers.close()
        assert call.pool.open == 0


def test_the_gateway_never_imports_litellm() -> None:
    code = "import gateway.upstream.providers, sys; sys.exit('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == 0
