"""Versions in a real store: whole, checked, one after the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from gateway.errors import StoreCorrupt, StoreUnreachable, VersionConflict, VersionPruned
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.policy_set import PolicySet
from gateway.policy.pruning import KEPT_WHOLE, prune, version_key
from gateway.policy.standing import Refusal, Standing
from gateway.policy.store import HEAD_KEY, PolicyStore
from gateway.policy.validate import read_folder
from gateway.policy.versions import Head
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


async def test_a_document_of_an_earlier_release_is_read_as_well(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    await store.apply(policy_set)
    async with store._link.mapped():
        raw = await store._redis.hget(version_key(1), "document")
        assert raw is not None
        assert not raw.startswith(b"{")
        await store._redis.hset(version_key(1), "document", policy_set.document)
    assert (await store.load(1)).document == policy_set.document
    async with store._link.mapped():
        await store._redis.hset(version_key(1), "document", "rubbish")
    with pytest.raises(StoreCorrupt, match="version 1 is damaged"):
        await store.load(1)


async def test_a_new_version_goes_past_what_any_live_gateway_knows(store: PolicyStore, folder: Folder) -> None:
    """As after the promotion of a replica that lacks the last versions."""
    policy_set = read_folder(folder.path)
    first = await store.apply(policy_set)

    def standing(in_force: Head, refused: Head | None = None) -> Standing:
        refusal = None if refused is None else Refusal(refused, "it cannot be used")
        return Standing(name="gw", pid=1, in_force=in_force, refused=refusal)

    await store.beat("one", standing(Head(first.store_id, 4, "lost")))
    await store.beat("another store's", standing(Head("another", 900, "d")))
    assert (await store.apply(policy_set)).version == 5
    await store.beat("two", standing(first, refused=Head(first.store_id, 7, "lost too")))
    assert (await store.apply(policy_set, base=5)).version == 8
    assert (await store.apply(policy_set)).version == 9


async def _applied(store: PolicyStore, policy_set: PolicySet, count: int) -> list[int]:
    return [(await store.apply(policy_set)).version for _ in range(count)]


async def test_only_the_newest_versions_keep_their_content(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    await _applied(store, policy_set, 3)
    # Numbers are left out, more at once than are kept.
    await store.apply(policy_set, above=1_000)
    last = (await _applied(store, policy_set, KEPT_WHOLE - 2))[-1]
    assert [meta.pruned for meta in await store.history(60)] == [False] * (KEPT_WHOLE - 1) + [False, True, True]
    for number in (3, 1_001, last):
        assert (await store.load(number)).document == policy_set.document
    for asked in (store.load, store.sources):
        with pytest.raises(VersionPruned, match=f"version 2 is no longer kept: .* newest {KEPT_WHOLE}"):
            await asked(2)
    assert (await store.history(60))[-1].note == ""
    await _applied(store, policy_set, 1)
    with pytest.raises(VersionPruned):
        await store.load(3)
    await store.load(1_001)


async def test_a_store_of_an_earlier_release_is_pruned_with_the_next_version(
    store: PolicyStore, folder: Folder
) -> None:
    policy_set = read_folder(folder.path)
    await _applied(store, policy_set, KEPT_WHOLE)
    async with store._link.mapped():
        # It knew no bound.
        for number in range(1, KEPT_WHOLE + 1):
            await store._redis.copy(version_key(number), version_key(number + 600))  # type: ignore[no-untyped-call]
            meta = json.loads(await store._redis.hget(version_key(number), "meta") or b"")
            meta["version"] += 600
            await store._redis.hset(version_key(number + 600), "meta", json.dumps(meta))
        await store._redis.hset(HEAD_KEY, "version", 600 + KEPT_WHOLE)
    await store.apply(policy_set)
    history = await store.history(200)
    assert [meta.pruned for meta in history] == [False] * KEPT_WHOLE + [True] * (KEPT_WHOLE + 1)


async def test_pruning_leaves_a_store_alone_that_others_change_meanwhile(store: PolicyStore, folder: Folder) -> None:
    policy_set = read_folder(folder.path)
    await _applied(store, policy_set, 3)
    async with store._link.mapped():
        await prune(store._redis, HEAD_KEY, 2, keep=1)
    assert not any(meta.pruned for meta in await store.history(5))
    async with store._link.mapped():
        await prune(store._redis, HEAD_KEY, 3, keep=1)
    assert [meta.pruned for meta in await store.history(5)] == [False, True, True]
    assert (await store.load(3)).document == policy_set.document
