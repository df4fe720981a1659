"""The audit log in a real store: written behind, kept while the store is away, bounded on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.errors import StoreCorrupt
from gateway.policy import audit_log, audit_stream
from gateway.policy.audit_log import AuditLog
from gateway.policy.audit_stream import AUDIT_KEY, AuditEntry, AuditStream
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.redis_link import RedisLink
from gateway.policy.refusal_counts import EACH_S, MOST_SOURCES, RefusalCounts
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder, RecordedAlarms, eventually


def entry(what: str = "POST /admin/boxes/a/drain", **more: object) -> AuditEntry:
    return AuditEntry(**{"at": 1000.0, "who": "robot", "what": what, "outcome": "200", "where": "10.0.0.9", **more})  # type: ignore[arg-type]


class Counts:
    def __init__(self) -> None:
        self.waiting, self.dropped = 0.0, 0

    def set(self, count: float) -> None:
        self.waiting = count

    def drop(self) -> None:
        self.dropped += 1


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def opened(
    valkey: EmbeddedValkey, alarms: RecordedAlarms, counts: Counts
) -> AsyncIterator[Callable[[], AuditLog]]:
    logs: list[AuditLog] = []

    def open_one() -> AuditLog:
        loop = asyncio.get_running_loop()
        log = AuditLog(lambda: valkey.url, alarms=alarms, waiting=counts.set, dropped=counts.drop, clock=loop.time)
        log.start()
        logs.append(log)
        return log

    yield open_one
    for log in logs:
        await log.close()


@pytest.fixture
async def stream(valkey: EmbeddedValkey) -> AsyncIterator[AuditStream]:
    link = RedisLink(valkey.url)
    yield AuditStream(link)
    await link.close()


async def whats(stream: AuditStream) -> list[str]:
    return [one.what for one in await stream.read()]


async def test_what_is_recorded_is_in_the_store_for_all_gateways_and_in_the_log(
    opened: Callable[[], AuditLog], counts: Counts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "failsoft.audit")
    first, second = opened(), opened()
    first.record(entry("one"))
    second.record(entry("two", at=1001.0, parameters='{"for": "10m"}'))
    await eventually(lambda: counts.waiting == 0)
    found, error = await first.read(since_s=0, limit=10)
    assert error is None
    assert [(one.what, one.who, one.where, one.outcome) for one in found] == [
        ("one", "robot", "10.0.0.9", "200"),
        ("two", "robot", "10.0.0.9", "200"),
    ]
    assert found[1].parameters == '{"for": "10m"}'
    assert {one.gateway for one in found} == {first.gateway, second.gateway}
    assert [one.what for one in (await first.read(since_s=1000.5, limit=10))[0]] == ["two"]
    assert len((await first.read(since_s=0, limit=1))[0]) == 1
    assert "one" in caplog.text


async def test_while_the_store_is_away_entries_are_kept_shown_and_written_later(
    opened: Callable[[], AuditLog],
    valkey: EmbeddedValkey,
    stream: AuditStream,
    alarms: RecordedAlarms,
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_log, "KEPT_WAITING", 3)
    log = opened()
    log.record(entry("before"))
    await eventually(lambda: counts.waiting == 0)
    await valkey.stop()
    for number in range(5):
        log.record(entry(f"away {number}", at=1001.0 + number))
    await eventually(lambda: "audit_unwritten" in alarms.kinds())
    assert (counts.waiting, counts.dropped) == (3, 2)
    found, error = await log.read(since_s=0, limit=10)
    assert error is not None
    # What cannot be written any more is still remembered here.
    assert [one.what for one in found] == ["before", *(f"away {number}" for number in range(5))]
    await valkey.start()
    await eventually(lambda: counts.waiting == 0)
    assert await whats(stream) == ["before", "away 0", "away 1", "away 2"]
    await eventually(lambda: "audit_unwritten" not in alarms.kinds())


async def test_what_is_recorded_last_is_written_before_the_end(
    opened: Callable[[], AuditLog], stream: AuditStream
) -> None:
    log = opened()
    log.record(entry("last"))
    for _ in range(3):
        log.refused(entry("GET /admin/status", outcome="401", who=""))
    await log.close()
    assert sorted((one.what, one.times) for one in await stream.read()) == [
        ("GET /admin/status", 1),
        ("GET /admin/status", 2),
        ("last", 1),
    ]


async def test_the_stream_is_capped(
    stream: AuditStream, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_stream, "KEPT", 100)
    await stream.append([entry(f"act {number}", at=float(number)) for number in range(1000)])
    assert len(await stream.read(limit=5000)) < 300


async def test_an_entry_that_was_written_twice_counts_once_and_what_is_none_is_passed_over(
    stream: AuditStream, valkey: EmbeddedValkey
) -> None:
    await stream.append([entry("one", id="g-1"), entry("one", id="g-1")])
    async with Redis.from_url(valkey.url) as redis:
        await redis.xadd(AUDIT_KEY, {"hello": "world"})
        await redis.xadd(AUDIT_KEY, {"act": b"\xff"})
        await redis.xadd(AUDIT_KEY, {"act": '{"at": "soon"}'})
    assert await whats(stream) == ["one"]


async def test_values_are_cut(stream: AuditStream) -> None:
    await stream.append([entry(parameters="x" * 100_000)])
    (found,) = await stream.read()
    assert len(found.parameters) == audit_stream.LONGEST_VALUE


async def test_something_else_under_its_key_is_an_error_of_the_store(
    stream: AuditStream, valkey: EmbeddedValkey
) -> None:
    async with Redis.from_url(valkey.url) as redis:
        await redis.set(AUDIT_KEY, "x")
    with pytest.raises(StoreCorrupt):
        await stream.append([entry()])


async def test_a_version_that_is_applied_is_in_it_and_one_that_is_not_is_not(
    store: PolicyStore, stream: AuditStream, folder: Folder
) -> None:
    head = await store.apply(read_folder(folder.path), note="first", author="ada")
    (found,) = await stream.read()
    assert (found.who, found.what, found.outcome) == ("ada", "policies: version 1", "done")
    assert head.digest in found.parameters
    assert "first" in found.parameters


def test_the_same_refusal_is_told_once_and_then_counted() -> None:
    refusals = RefusalCounts()
    guess = entry("GET /admin/status", who="", outcome="401")
    assert refusals.take(guess, 0.0) is guess
    assert all(refusals.take(guess, 1.0) is None for _ in range(9))
    assert refusals.due(EACH_S - 1) == []
    (counted,) = refusals.due(EACH_S)
    assert counted.times == 9
    assert refusals.take(guess, EACH_S + 1) is None
    assert [one.times for one in refusals.due(2 * EACH_S)] == [1]
    assert refusals.due(3 * EACH_S) == []
    assert refusals.take(guess, 3 * EACH_S) is guess


@settings(deadline=None)
@given(
    asked=st.lists(st.tuples(st.integers(0, 2 * MOST_SOURCES), st.sampled_from(["401", "403"]), st.floats(0, 30))),
)
def test_no_refusal_is_lost_from_the_count_and_what_is_remembered_is_bounded(
    asked: list[tuple[int, str, float]],
) -> None:
    refusals = RefusalCounts()
    now, told = 0.0, 0
    for source, outcome, after in asked:
        now += after
        told += sum(one.times for one in refusals.due(now))
        one = refusals.take(entry(who="", where=f"10.0.0.{source}", outcome=outcome), now)
        told += one.times if one is not None else 0
        assert len(refusals._known) <= MOST_SOURCES + 2
    told += sum(one.times for one in refusals.rest())
    assert told == len(asked)


async def test_a_store_that_is_not_up_yet_is_awaited(
    valkey: EmbeddedValkey, stream: AuditStream, alarms: RecordedAlarms, counts: Counts
) -> None:
    urls: list[str] = []

    def url() -> str:
        if not urls:
            raise RuntimeError("the embedded store has not been started")
        return urls[0]

    loop = asyncio.get_running_loop()
    log = AuditLog(url, alarms=alarms, waiting=counts.set, dropped=counts.drop, clock=loop.time)
    log.start()
    log.record(entry("early"))
    await eventually(lambda: "audit_unwritten" in alarms.kinds())
    assert (await log.read(since_s=0, limit=10))[1] is not None
    urls.append(valkey.url)
    await eventually(lambda: counts.waiting == 0)
    assert await whats(stream) == ["early"]
    await log.close()
