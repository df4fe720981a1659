"""Without --redis: the folder is the truth, and a change that does not hold together changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.errors import PolicyError, StateUnusable
from gateway.policy.follow import PolicyFollower
from gateway.policy.snapshot import Snapshot
from gateway.policy.versions import Head
from tests.policy.scenery import Folder, RecordedAlarms, eventually

Follow = Callable[..., Awaitable[PolicyFollower]]


def version(follower: PolicyFollower) -> int:
    return follower.current.version if follower.current is not None else 0


def customers(follower: PolicyFollower) -> set[str]:
    return set(follower.current.customers) if follower.current is not None else set()


async def test_the_folder_is_in_force_and_followed_when_its_files_have_come_to_rest(
    folder: Folder, follow: Follow
) -> None:
    follower = await follow(folder=folder.path)
    assert (version(follower), follower.source) == (1, "folder")
    folder.customer("globex")
    await eventually(lambda: customers(follower) == {"acme", "globex"})
    assert version(follower) == 2
    by = [meta.author for meta in await follower.store.history(9)]
    assert by == ["gateway, from its folder", "gateway at start, from a folder"]


async def test_a_folder_that_did_not_change_makes_no_new_version(folder: Folder, follow: Follow) -> None:
    first = await follow(folder=folder.path)
    await first.close()
    again = await follow(folder=folder.path)
    assert version(again) == 1
    assert again.current is not None
    assert first.current is not None
    assert again.current.store_id == first.current.store_id


async def test_what_changed_while_the_gateway_was_down_is_in_force_after_its_start(
    folder: Folder, follow: Follow
) -> None:
    await (await follow(folder=folder.path)).close()
    folder.customer("globex")
    follower = await follow(folder=folder.path)
    assert (version(follower), customers(follower)) == (2, {"acme", "globex"})


async def test_case_38_a_bad_change_is_refused_whole_until_it_is_mended(
    folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    follower = await follow(folder=folder.path)
    folder.customer("globex")
    folder.customer("acme", "ttft_buget: 1s\n")
    await eventually(lambda: "policy_folder_invalid" in alarms.kinds())
    assert (version(follower), customers(follower)) == (1, {"acme"})
    assert "ttft_budget" in alarms.now["policy_folder_invalid", "policies"]
    folder.customer("acme", "ttft_budget: 1s\n")
    await eventually(lambda: version(follower) == 2)
    assert customers(follower) == {"acme", "globex"}
    assert alarms.kinds() == set()


async def test_a_folder_that_is_gone_leaves_the_last_version_in_force(
    folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    follower = await follow(folder=folder.path)
    folder.path.rename(folder.path.with_name("elsewhere"))
    await eventually(lambda: "policy_folder_invalid" in alarms.kinds())
    assert version(follower) == 1


async def test_a_gateway_restarts_with_an_invalid_folder_on_the_last_good_version(
    folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await (await follow(folder=folder.path)).close()
    folder.customer("acme", "x: 1\n")
    follower = await follow(folder=folder.path)
    assert version(follower) == 1
    assert "policy_folder_invalid" in alarms.kinds()


async def test_a_first_start_with_an_invalid_folder_fails_and_leaves_nothing_running(
    folder: Folder, follow: Follow, tmp_path: Path
) -> None:
    folder.customer("acme", "x: 1\n")
    with pytest.raises(PolicyError, match="unknown key"):
        await follow(folder=folder.path)
    assert not (tmp_path / "state" / "valkey" / "valkey.sock").exists()
    folder.customer("acme")
    assert version(await follow(folder=folder.path)) == 1


async def test_the_embedded_store_is_killed_and_nobody_notices(
    folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    follower = await follow(folder=folder.path)
    assert follower.embedded is not None
    first = follower.embedded.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: follower.embedded is not None and follower.embedded.pid not in (None, first))
    assert version(follower) == 1
    folder.customer("globex")
    await eventually(lambda: version(follower) == 2)
    await eventually(lambda: alarms.kinds() == set())


async def test_an_embedded_store_that_lost_all_is_filled_from_the_folder_again(folder: Folder, follow: Follow) -> None:
    follower = await follow(folder=folder.path)
    assert follower.embedded is not None
    assert follower.current is not None
    before = follower.current.store_id
    async with Redis.from_url(follower.embedded.url) as redis:
        await redis.flushall()
    await eventually(lambda: follower.current is not None and follower.current.store_id != before)
    assert customers(follower) == {"acme"}


async def test_an_embedded_store_that_fell_back_is_taken_past_what_was_seen(
    folder: Folder, follow: Follow, tmp_path: Path
) -> None:
    first = await follow(folder=folder.path)
    assert first.current is not None
    store_id = first.current.store_id
    await first.close()
    snapshot = Snapshot(tmp_path / "state")
    memory = snapshot.read()
    snapshot.write(memory.having_seen(Head(store_id, 9, ""), embedded=True))
    again = await follow(folder=folder.path)
    assert again.current is not None
    assert (again.current.store_id, again.current.version) == (store_id, 10)


async def test_two_gateways_do_not_share_a_state_folder(folder: Folder, follow: Follow) -> None:
    first = await follow(folder=folder.path)
    with pytest.raises(StateUnusable, match="--state DIR"):
        await follow(folder=folder.path)
    assert version(first) == 1
