"""`failsoft degrade` and `restore`: who is asked follows at once, everybody else on the store within a second."""

from __future__ import annotations

import pytest

from tests.cli.served import ADAPTER, Served
from tests.faults.store_process import StoreProcess
from tests.orders.conftest import Street
from tests.support.checker import check_stream
from tests.support.raw_client import RawClient
from tests.workers.conftest import Several


async def reason(gateway: Several, customer: str = "acme") -> str | None:
    answer = await RawClient(gateway.url, key=f"fs-{customer}-key").chat(f"{customer}_v3")
    assert answer.status == 200, answer.body
    return answer.headers.get("x-failsoft-degraded")


async def follows(gateway: Several, wanted: str | None, customer: str = "acme", *, within_s: float = 30.0) -> None:
    async def is_so() -> bool:
        return await reason(gateway, customer) == wanted

    await gateway.until(is_so, within_s=within_s)


async def test_two_gateways_and_all_their_workers_follow_an_order_until_it_is_taken_back(
    street: Street, redis: StoreProcess
) -> None:
    served = street.policies("one")
    first = await street.gateway(served, "--redis", redis.url, "--workers", "2")
    second = await street.gateway(street.policies("two"), "--redis", redis.url)
    await first.until(lambda: _alive(first, 2))

    code, said = await first.failsoft("degrade", "acme", "--for", "10m", "--reason", "adapter v3 talks nonsense")
    assert code == 0, said
    assert "acme is answered by the fallback for 10m from now on, on every gateway that the store hears" in said
    # All workers of the gateway that was asked have it by the time that the command returns.
    answers = await first.crowd(12)
    assert {answer.headers["x-failsoft-degraded"] for answer in answers} == {"forced"}
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"provider:hosted"}
    assert all(check_stream(answer).whole and b'"degraded":{"reason":"forced"' in answer.body for answer in answers)
    await follows(second, "forced")
    assert await reason(second, "globex") is None

    for gateway in (first, second):
        (order,) = (await gateway.status())["orders"]
        assert (order["customer"], order["reason"]) == ("acme", "adapter v3 talks nonsense")
        assert 590 < order["left_s"] <= 600
        assert await gateway.metric("failsoft_order_seconds_left", customer="acme") > 590
        assert "degraded_by_order" in {alarm["kind"] for alarm in (await gateway.status())["alarms"]}
        _, said = await gateway.failsoft("status")
        assert "adapter v3 talks nonsense" in " ".join(said.split())
    _, said = await second.failsoft("explain", "--customer", "acme", "--model", ADAPTER)
    assert "provider:hosted, degraded: forced" in said
    assert "adapter v3 talks nonsense" in " ".join(said.split())

    # A gateway that starts later begins with it, and a restart changes nothing.
    third = await street.gateway(street.policies("three"), "--redis", redis.url)
    assert await reason(third) == "forced"

    code, said = await second.failsoft("restore", "acme")
    assert code == 0, said
    for gateway in (first, second, third):
        await follows(gateway, None)
        assert (await gateway.status())["orders"] == []
    assert [event["customer"] for event in await first.events("order_over")] == ["acme"]


async def test_a_customer_without_a_fallback_is_named_by_the_command_as_its_own_adapter_still_answers(
    street: Street,
) -> None:
    served = street.policies("one")
    served.customer("acme", "fs-acme-key", fallback=[])
    gateway = await street.gateway(served)
    code, said = await gateway.failsoft("degrade", "--all", "--for", "2m")
    assert code == 1
    assert "not degraded: acme: no step of the fallback can answer" in " ".join(said.split())
    assert (await reason(gateway), await reason(gateway, "globex")) == (None, "forced")


async def test_an_order_survives_a_restart_of_a_gateway_with_a_store_of_its_own(street: Street) -> None:
    served = street.policies("one")
    gateway = await street.gateway(served)
    assert (await gateway.failsoft("degrade", "--all", "--for", "10m"))[0] == 0
    gateway.process.terminate()
    await gateway.process.ended(within_s=20)
    again = await street.gateway(served)
    assert await reason(again, "globex") == "forced"


async def test_with_the_store_away_an_order_holds_where_it_was_given_and_everywhere_once_it_is_back(
    street: Street, redis: StoreProcess
) -> None:
    first = await street.gateway(street.policies("one"), "--redis", redis.url)
    second = await street.gateway(street.policies("two"), "--redis", redis.url)
    redis.process.kill()
    code, said = await first.failsoft("degrade", "acme", "--for", "10m")
    assert code == 0, said
    assert "the store is away, so that it holds on the gateway that was asked alone" in said
    assert await reason(first) == "forced"
    assert await reason(second) is None
    redis.process.start()
    await redis.ready()
    await follows(second, "forced")
    # An emptied store takes no order back.
    await redis.flush()
    third = await street.gateway(street.policies("three"), "--redis", redis.url)
    await follows(third, "forced")
    for gateway in (first, second):
        await follows(gateway, "forced")


async def _alive(gateway: Several, count: int) -> bool:
    return bool((await gateway.status())["replicas"]["alive"] == count)


@pytest.mark.parametrize("bad", ["hangs", "is killed"])
async def test_an_order_holds_at_a_gateway_that_starts_again_while_the_store_is_away_and_is_followed_once_it_is_back(
    street: Street, redis: StoreProcess, bad: str
) -> None:
    served = street.policies("one")
    first = await street.gateway(served, "--redis", redis.url)
    second = await street.gateway(street.policies("two"), "--redis", redis.url)
    assert (await second.failsoft("degrade", "acme", "--for", "10m", "--reason", "v3 talks nonsense"))[0] == 0
    await follows(first, "forced")
    # Once it is written down where it will be looked for.
    await first.until(lambda: _remembers(served, "v3 talks nonsense"))
    if bad == "hangs":
        redis.process.freeze()
    else:
        redis.process.kill()
    first.process.kill()
    again = await street.gateway(served, "--redis", redis.url)
    assert (await again.status())["policy"]["from_snapshot"]
    assert [await reason(again), await reason(again, "globex")] == ["forced", None]
    (order,) = (await again.status())["orders"]
    assert order["reason"] == "v3 talks nonsense"
    assert 500 < order["left_s"] <= 600

    if bad == "hangs":
        redis.process.thaw()
    else:
        redis.process.start()
        await redis.ready()

    async def is_shared() -> bool:
        return "the store is away" not in (await second.failsoft("restore", "acme"))[1]

    await second.until(is_shared, within_s=20)
    await follows(again, None, within_s=10)


async def test_what_was_taken_back_while_the_store_is_away_stays_so_at_a_gateway_that_starts_again(
    street: Street, redis: StoreProcess
) -> None:
    served = street.policies("one")
    first = await street.gateway(served, "--redis", redis.url)
    assert (await first.failsoft("degrade", "acme", "--for", "10m"))[0] == 0
    assert (await first.failsoft("degrade", "globex", "--for", "10m"))[0] == 0
    redis.process.kill()
    assert (await first.failsoft("restore", "acme"))[0] == 0
    first.process.kill()
    again = await street.gateway(served, "--redis", redis.url)
    assert [await reason(again), await reason(again, "globex")] == [None, "forced"]
    redis.process.start()
    await redis.ready()
    # The store still holds the order for acme, and hears that it was taken back.
    second = await street.gateway(street.policies("two"), "--redis", redis.url)
    await follows(second, "forced", "globex", within_s=10)
    await follows(second, None, within_s=10)
    assert [await reason(again), await reason(again, "globex")] == [None, "forced"]


async def _remembers(served: Served, text: str) -> bool:
    file = served.state / "orders.snapshot"
    return file.exists() and text in file.read_text()
