"""Which versions a store keeps whole: the newest. What is known of a version is kept of all, and takes 300 bytes.

At 10,000 customers as full as ``policies/customers/acme.yaml`` a version's content takes some 2.3 MB.
"""

from __future__ import annotations

from typing import Any, cast

from redis.exceptions import WatchError

from gateway.policy.redis_link import PREFIX

KEPT_WHOLE = 50
"""Versions with their content, the current one among them. Older policies are in git."""

PRUNED_TO = "pruned_to"
"""In the head: no version up to this number has its content any more, so nobody looks there again."""

BATCH = 500
"""Versions that are looked at in one round trip."""


def version_key(version: int) -> str:
    """Where a version lies."""
    return f"{PREFIX}version:{version}"


async def prune(redis: Any, head_key: str, current: int, *, keep: int = KEPT_WHOLE) -> None:
    """Let go of the content of all but the newest ``keep`` versions, where ``current`` is still the current one.

    Nothing is done where others have changed the head meanwhile: they prune then. Numbers may be left out.
    """
    async with redis.pipeline(transaction=True) as pipe:
        await pipe.watch(head_key)
        version, floor = cast("list[bytes | None]", await pipe.hmget(head_key, ["version", PRUNED_TO]))
        if version != str(current).encode():
            return
        whole: list[int] = []
        highest, lowest = current, int(floor or 0)
        while highest > lowest:
            numbers = range(highest, max(lowest, highest - BATCH), -1)
            async with redis.pipeline(transaction=False) as asking:
                for number in numbers:
                    asking.hexists(version_key(number), "document")
                found = await asking.execute()
            whole += [number for number, there in zip(numbers, found, strict=True) if there]
            highest = numbers[-1] - 1
        if not (old := whole[keep:]):
            return
        pipe.multi()
        for number in old:
            pipe.hset(version_key(number), "pruned", "1")
            pipe.hdel(version_key(number), "document", "sources")
        pipe.hset(head_key, PRUNED_TO, str(old[0]))
        try:
            await pipe.execute()
        except WatchError:
            return
