"""With --redis: a gateway keeps its policies current, and keeps them at all, whatever happens to the store."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.follow import PolicyFollower
from gateway.policy.pruning import version_key
from gateway.policy.snapshot import Memory, Snapshot
from gateway.policy.store import HEAD_KEY, PolicyStore
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder, RecordedAlarms, eventually

Follow = Callable[..., Awaitable[PolicyFollower]]


def version(follower: PolicyFollower) -> int:
    return follower.current.version if follower.current is not None else 0


def customers(follower: PolicyFollower) -> set[str]:
    return set(follower.current.customers) if follower.current is not None else set()


async def test_a_new_version_comes_into_force_and_listeners_hear_of_it(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    assert (version(follower), follower.source) == (1, "store")
    heard: list[int] = []
    follower.on_change(lambda compiled: heard.append(compiled.version))
    folder.customer("globex")
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 2)
    assert customers(follower) == {"acme", "globex"}
    assert heard == [1, 2]


async def test_a_listener_that_fails_keeps_nothing_from_coming_into_force(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)

    def fail(compiled: object) -> None:
        raise RuntimeError("broken listener")

    heard: list[int] = []
    follower.on_change(fail)
    follower.on_change(lambda compiled: heard.append(compiled.version))
    await store.apply(read_folder(folder.path))
    await eventually(lambda: heard == [1, 2])
    assert "broken listener" in caplog.text


async def test_case_35_the_store_is_killed_and_the_last_good_version_serves_on(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    await valkey.stop()
    await eventually(lambda: "policy_store_away" in alarms.kinds())
    assert version(follower) == 1
    await valkey.start()
    await eventually(lambda: "policy_store_away" not in alarms.kinds())
    folder.customer("globex")
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 2)


async def test_case_36_a_flushed_store_is_not_read_as_no_policy_and_is_not_seeded(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url, folder=folder.path)
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    await eventually(lambda: "policy_store_empty" in alarms.kinds())
    assert version(follower) == 1
    assert await store.head() is None
    await follower.close()
    again = await follow(redis_url=valkey.url, folder=folder.path)
    assert (version(again), again.source) == (1, "snapshot")
    assert await store.head() is None
    folder.customer("globex")
    await store.apply(read_folder(folder.path))
    await eventually(lambda: customers(again) == {"acme", "globex"})
    assert version(again) == 1
    await eventually(lambda: "policy_store_empty" not in alarms.kinds())


async def test_a_gateway_that_served_from_a_folder_seeds_the_store_that_it_is_given(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    before = await follow(folder=folder.path)
    assert version(before) == 1
    await before.close()
    follower = await follow(redis_url=valkey.url, folder=folder.path)
    assert (version(follower), follower.source) == (1, "store")
    assert await store.head() is not None
    assert "policy_store_empty" not in alarms.kinds()


async def test_case_37_a_store_that_falls_back_takes_no_gateway_with_it(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    old = await store.apply(read_folder(folder.path))
    folder.customer("globex")
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        await redis.hset(HEAD_KEY, mapping={"version": old.version, "digest": old.digest})
    await eventually(lambda: "policy_store_behind" in alarms.kinds())
    assert version(follower) == 2
    await follower.close()
    again = await follow(redis_url=valkey.url)
    assert (version(again), again.source) == (2, "snapshot")
    for _ in range(2):
        await store.apply(read_folder(folder.path))
    await eventually(lambda: version(again) == 3)
    await eventually(lambda: "policy_store_behind" not in alarms.kinds())


async def test_case_40_a_gateway_restarts_with_its_store_away(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await store.apply(read_folder(folder.path))
    await (await follow(redis_url=valkey.url)).close()
    await valkey.stop()
    follower = await follow(redis_url=valkey.url)
    assert (version(follower), follower.source) == (1, "snapshot")
    assert "policy_store_away" in alarms.kinds()
    await valkey.start()
    await eventually(lambda: follower.source == "store")
    await eventually(lambda: "policy_store_away" not in alarms.kinds())


async def test_a_gateway_that_never_saw_its_store_waits_for_it(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    await store.apply(read_folder(folder.path))
    await valkey.stop()
    follower = await follow(redis_url=valkey.url, folder=folder.path)
    assert (follower.current, follower.source) == (None, "none")
    await valkey.start()
    await eventually(lambda: version(follower) == 1)


async def test_a_store_that_never_held_a_version_is_seeded_from_the_folder(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    follower = await follow(redis_url=valkey.url, folder=folder.path)
    assert (version(follower), follower.source) == (1, "store")
    assert [meta.author for meta in await store.history(9)] == ["gateway at start, from a folder"]
    folder.customer("globex")
    await follower.close()
    again = await follow(redis_url=valkey.url, folder=folder.path)
    assert customers(again) == {"acme"}


async def test_a_gateway_with_a_damaged_snapshot_does_not_seed(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow, alarms: RecordedAlarms, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    Snapshot(tmp_path / "state").path.write_text("rubbish")
    follower = await follow(redis_url=valkey.url, folder=folder.path)
    assert follower.current is None
    assert await store.head() is None
    assert {"policy_snapshot", "policy_store_empty"} <= alarms.kinds()


async def test_an_empty_store_and_an_invalid_folder_end_the_start_with_all_that_is_wrong(
    valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    folder.customer("acme", "x: 1\ny: 2\n")
    with pytest.raises(PolicyError) as caught:
        await follow(redis_url=valkey.url, folder=folder.path)
    assert len(caught.value.diagnostics) == 2


@pytest.mark.parametrize("damage", ["half", "unusable"])
async def test_a_version_that_cannot_be_used_is_refused_and_the_next_one_is_not(
    store: PolicyStore,
    valkey: EmbeddedValkey,
    folder: Folder,
    follow: Follow,
    alarms: RecordedAlarms,
    damage: str,
) -> None:
    first = await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        if damage == "unusable":  # whole, and of a format that this release does not know
            text = b'{"format":99,"fleet":{},"defaults":{},"customers":[]}'
            digest = hashlib.sha256(text).hexdigest()
            meta = f'{{"store_id":"{first.store_id}","version":2,"digest":"{digest}","created":1}}'
            await redis.hset(version_key(2), mapping={"meta": meta, "document": text})
            await redis.hset(HEAD_KEY, mapping={"version": 2, "digest": digest})
        else:
            await redis.hset(HEAD_KEY, mapping={"version": 2})
    await eventually(lambda: "policy_version_refused" in alarms.kinds())
    assert version(follower) == 1
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 3)
    await eventually(lambda: "policy_version_refused" not in alarms.kinds())


async def test_a_complete_version_under_a_new_store_id_is_adopted(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    for _ in range(3):
        await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    assert version(follower) == 3
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    folder.customer("globex")
    new = await store.apply(read_folder(folder.path))
    await eventually(lambda: customers(follower) == {"acme", "globex"})
    assert follower.current is not None
    assert (follower.current.store_id, version(follower)) == (new.store_id, 1)


async def test_a_state_folder_that_cannot_be_written_is_told_and_serving_goes_on(
    store: PolicyStore,
    valkey: EmbeddedValkey,
    folder: Folder,
    follow: Follow,
    alarms: RecordedAlarms,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.apply(read_folder(folder.path))

    def full(self: Snapshot, memory: Memory) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Snapshot, "write", full)
    follower = await follow(redis_url=valkey.url)
    assert version(follower) == 1
    assert "No space left" in alarms.now["policy_snapshot", "policies"]
    monkeypatch.undo()
    await store.apply(read_folder(folder.path))
    await eventually(lambda: "policy_snapshot" not in alarms.kinds())


def test_a_follower_with_nothing_to_follow_is_refused(tmp_path: Path, alarms: RecordedAlarms) -> None:
    with pytest.raises(ValueError, match="--redis URL or --policies DIR"):
        PolicyFollower(state_dir=tmp_path, env={}, alarms=alarms)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_follower_ends_at_once_wherever_it_is(valkey: EmbeddedValkey, follow: Follow, steps: int) -> None:
    follower = await follow(redis_url=valkey.url)
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await follower.close()


async def test_case_37_however_many_apply_at_once_no_gateway_ever_goes_back(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, tmp_path: Path, alarms: RecordedAlarms
) -> None:
    await store.apply(read_folder(folder.path))
    followers = [
        PolicyFollower(redis_url=valkey.url, state_dir=tmp_path / name, env={}, alarms=alarms) for name in ("a", "b")
    ]
    heard: list[list[tuple[int, str]]] = [[], []]

    def listener(mine: list[tuple[int, str]]) -> Callable[[CompiledPolicy], None]:
        return lambda compiled: mine.append((compiled.version, compiled.customers["acme"].priority))

    for follower, mine in zip(followers, heard, strict=True):
        await follower.start()
        follower.on_change(listener(mine))
    sets = {}
    for priority in ("high", "low"):
        folder.customer("acme", f"priority: {priority}\n")
        sets[priority] = read_folder(folder.path)

    async def keep_applying(priority: str) -> list[tuple[int, str]]:
        return [((await store.apply(sets[priority])).version, priority) for _ in range(8)]

    written = dict(itertools.chain.from_iterable(await asyncio.gather(*map(keep_applying, sets))))
    assert sorted(written) == list(range(2, 18))
    await eventually(lambda: all(version(follower) == 17 for follower in followers))
    for mine in heard:
        assert [number for number, _ in mine] == sorted({number for number, _ in mine})
        assert all(written.get(number, "standard") == priority for number, priority in mine)
    for follower in followers:
        await follower.close()


async def test_a_version_that_cannot_be_used_is_told_to_whoever_asks_why(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, follow: Follow
) -> None:
    await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    told: list[bool] = []
    follower.on_refusal = lambda: told.append(True)
    async with Redis.from_url(valkey.url) as redis:
        await redis.hset(HEAD_KEY, mapping={"version": 2})
    await eventually(lambda: bool(told))
    assert follower.refusal is not None
    assert (follower.refusal.head.version, "not whole" in follower.refusal.why) == (2, True)
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 3)
    assert follower.refusal is None


@pytest.mark.parametrize("later", [True, False])
async def test_of_two_contents_under_one_number_all_gateways_come_to_the_later_one(
    store: PolicyStore,
    valkey: EmbeddedValkey,
    folder: Folder,
    follow: Follow,
    alarms: RecordedAlarms,
    caplog: pytest.LogCaptureFixture,
    *,
    later: bool,
) -> None:
    """A replica was promoted that lacked version 2, and somebody applied before any gateway had said that it has it."""
    await store.apply(read_folder(folder.path))
    folder.customer("globex")
    lost = await store.apply(read_folder(folder.path))
    follower = await follow(redis_url=valkey.url)
    assert customers(follower) == {"acme", "globex"}
    folder.customer("initech")
    other = read_folder(folder.path)
    async with Redis.from_url(valkey.url) as redis:
        meta = json.loads(await redis.hget(version_key(2), "meta") or b"")
        meta |= {"digest": other.digest, "created": meta["created"] + (60 if later else -60)}
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hset(version_key(2), mapping={"meta": json.dumps(meta), "document": other.document})
            pipe.hset(HEAD_KEY, "digest", other.digest)
            await pipe.execute()
    await eventually(lambda: "was given twice" in caplog.text)
    if later:
        await eventually(lambda: "initech" in customers(follower))
        assert follower.version is not None
        assert follower.version.head.digest == other.digest
    else:
        await eventually(lambda: "policy_store_behind" in alarms.kinds())
        assert "under the number of version 2" in alarms.now["policy_store_behind", "policies"]
        assert follower.version is not None
        assert follower.version.head == lost
    # Whichever holds, the next version ends it everywhere.
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 3)
    await eventually(lambda: "policy_store_behind" not in alarms.kinds())
