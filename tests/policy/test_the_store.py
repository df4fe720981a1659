"""Versions in a real store: whole, checked, one after the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from gateway.errors import StoreCorrupt, StoreUnreachable, VersionConflict
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.store import HEAD_KEY, PolicyStore, version_key
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder


async def test_an_empty_store_has_no_version(store: PolicyStore) -> None:
    assert await store.head() is None


async def test_what_was_applied_is_what_is_loaded(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    head = await store.apply(policy_set, note="first", author="ops")
    assert (head.version, head.digest) == (1, policy_set.digest)
    assert await store.head() == head
    version = await store.load(1)
    assert (version.head, version.note, version.author) == (head, "first", "ops")
    assert version.document == policy_set.document
    assert b"${OPENAI_API_KEY}" in version.document
    assert set(await store.sources(1)) == {"fleet.yaml", "customers/acme.yaml"}


async def test_versions_count_up_within_one_store(store: PolicyStore, folder: Folder) -> None:
    first = await store.apply(read_folder(folder.path))
    folder.customer("globex")
    second = await store.apply(read_folder(folder.path))
    assert (second.version, second.store_id) == (2, first.store_id)
    assert (await store.load(1)).head == first


async def test_applies_at_the_same_moment_get_a_version_each(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    heads = await asyncio.gather(*(store.apply(policy_set) for _ in range(4)))
    assert sorted(head.version for head in heads) == [1, 2, 3, 4]
    assert len({head.store_id for head in heads}) == 1


async def test_a_change_based_on_a_version_that_is_not_current_is_refused(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    with pytest.raises(VersionConflict, match="based on version 1, and the store is at empty"):
        await store.apply(policy_set, base=1)
    await store.apply(policy_set)
    assert (await store.apply(policy_set, base=1)).version == 2
    with pytest.raises(VersionConflict, match="based on version 1, and the store is at version 2"):
        await store.apply(policy_set, base=1)
    head = await store.head()
    assert head is not None
    assert head.version == 2


async def test_only_one_of_many_seeds_a_store(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    outcomes = await asyncio.gather(
        *(store.apply(policy_set, only_if_never_filled=True) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 3


@pytest.mark.parametrize("damage", ["document", "meta", "body", "head"])
async def test_a_version_that_is_not_whole_is_not_taken_for_one(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder, damage: str
) -> None:
    await store.apply(read_folder(folder.path))
    async with Redis.from_url(valkey.url) as redis:
        if damage == "document":
            await redis.hset(version_key(1), "document", b"{}")
        elif damage == "meta":
            await redis.hset(version_key(1), "meta", b"{")
        elif damage == "body":
            await redis.delete(version_key(1))
        else:
            await redis.hdel(HEAD_KEY, "digest")
    with pytest.raises(StoreCorrupt):
        await (store.head() if damage == "head" else store.load(1))


async def test_a_key_of_somebody_else_is_not_taken_for_a_version(store: PolicyStore, valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as redis:
        await redis.set(HEAD_KEY, "x")
    with pytest.raises(StoreCorrupt, match="something else"):
        await store.head()


async def test_all_keys_are_in_one_slot_of_a_cluster(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder
) -> None:
    await store.apply(read_folder(folder.path))
    async with Redis.from_url(valkey.url, decode_responses=True) as redis:
        assert all(key.startswith("{failsoft}:") for key in await redis.keys("*"))


async def test_a_watcher_hears_of_each_version_without_waiting_for_its_poll(store: PolicyStore, folder: Folder) -> None:
    async with aclosing(store.watch(poll_s=60)) as heads:
        assert await anext(heads) is None
        await anext(heads)  # the confirmation of the subscription ends the first wait
        applied = await store.apply(read_folder(folder.path))
        async with asyncio.timeout(5):
            assert await anext(heads) == applied


async def test_a_watcher_finds_by_itself_what_nobody_announced(
    store: PolicyStore, valkey: EmbeddedValkey, folder: Folder
) -> None:
    await store.apply(read_folder(folder.path))
    async with aclosing(store.watch(poll_s=0.05)) as heads, Redis.from_url(valkey.url) as redis:
        assert await anext(heads) is not None
        await redis.flushall()
        async with asyncio.timeout(5):
            while await anext(heads) is not None:
                pass


async def test_a_store_that_is_away_is_unreachable_and_its_password_is_not_told() -> None:
    store = PolicyStore("redis://ops:very-secret@127.0.0.1:1/0")
    with pytest.raises(StoreUnreachable) as caught:
        await store.head()
    assert "127.0.0.1:1" in str(caught.value)
    assert "very-secret" not in str(caught.value)
    await store.close()


async def test_a_store_that_never_answers_is_unreachable() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    store = PolicyStore(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(StoreUnreachable):
        await store.head()
    await store.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://x", "redis://", "unix://"])
def test_what_is_not_the_url_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis://HOST:PORT"):
        PolicyStore(url)


async def test_the_texts_of_an_earlier_release_are_read_as_well(store: PolicyStore, folder: Folder) -> None:
    await store.apply(read_folder(folder.path))
    texts = await store.sources(1)
    async with store._link.mapped():
        raw = await store._redis.hget(version_key(1), "sources")
        assert raw is not None
        assert not raw.startswith(b"{")
        await store._redis.hset(version_key(1), "sources", json.dumps(dict(texts)))
    assert await store.sources(1) == texts
    async with store._link.mapped():
        await store._redis.hset(version_key(1), "sources", "rubbish")
    with pytest.raises(StoreCorrupt, match="version 1 is damaged"):
        await store.sources(1)


async def test_the_history_passes_over_numbers_that_were_never_given(store: PolicyStore, folder: Folder) -> None:
    assert await store.history(5) == []
    policy_set = read_folder(folder.path)
    await store.apply(policy_set)
    await store.apply(policy_set, above=300)
    await store.apply(policy_set)
    assert [meta.version for meta in await store.history(5)] == [302, 301, 1]
    assert [meta.version for meta in await store.history(2)] == [302, 301]
