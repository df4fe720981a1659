"""The policy store: versions of the policies in Redis.

Keys, all under one hash tag, so that a Redis Cluster keeps them in one slot and one transaction:

``{failsoft}:head``
    hash: ``store_id``, ``version``, ``digest`` of the current version; ``pruned_to``, see :mod:`gateway.policy.pruning`
``{failsoft}:version:N``
    hash: ``meta`` (JSON: store_id, version, digest, created, note, author, customers), ``document`` (the normalised
    policies, deflated, all that gateways read) and ``sources`` (JSON, deflated: the YAML files' texts by path, for
    people). Of old versions only ``meta`` is left, and ``pruned``.
``{failsoft}:replicas``
    sorted set: the gateways that did not say that they end, each with when it last said that it lives, in milliseconds
    of the server's clock; a silent one for :data:`SILENT_KEPT_S`, as it may live where the store does not hear it
``{failsoft}:replica:ID``
    JSON: what that gateway said of itself (:mod:`gateway.policy.standing`); gone together with it
``{failsoft}:changes``
    channel: the number of each new version

A version is written, made current and announced in one transaction that fails if the head has moved meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import msgspec
from redis.exceptions import WatchError

from gateway.clock import wall_s
from gateway.errors import StoreCorrupt, StoreUnreachable, VersionConflict, VersionPruned
from gateway.policy.audit_stream import AUDIT_KEY, KEPT, AuditEntry, fields
from gateway.policy.policy_set import PolicySet
from gateway.policy.pruning import KEPT_WHOLE, prune, version_key
from gateway.policy.redis_link import ANSWER_TIMEOUT_S, CONTENT_TIMEOUT_S, PREFIX, RedisLink
from gateway.policy.standing import Replica, Standing, decode_standing, encode_standing, highest_known
from gateway.policy.versions import Head, StoredVersion

log = logging.getLogger(__name__)

HEAD_KEY = PREFIX + "head"
CHANGES = PREFIX + "changes"
REPLICAS_KEY = PREFIX + "replicas"

POLL_S = 1.0
"""How often a gateway looks by itself, should a message be lost."""
SILENT_KEPT_S = 900.0
"""So long a silent one is named. By then whoever watches has seen whether it lives, and lets it be or ends it."""
WRITE_ATTEMPTS = 10
"""Of an ``apply`` without ``base``, when others apply at the same moment."""


def replica_key(replica: str) -> str:
    """Where a gateway says how it stands."""
    return f"{PREFIX}replica:{replica}"


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version besides its content. ``created``: Unix time. ``customers``: how many. ``pruned``: the
    content is no longer kept.
    """

    store_id: str
    version: int
    digest: str
    created: int
    note: str = ""
    author: str = ""
    customers: int | None = None
    pruned: bool = False

    @property
    def head(self) -> Head:
        """Which version it is."""
        return Head(self.store_id, self.version, self.digest)


class PolicyStore:
    """The versions behind one link. Every method raises only :class:`~gateway.errors.StoreError`.

    ``url``: as :class:`~gateway.policy.redis_link.RedisLink` takes it. Raises ValueError for any other.
    """

    def __init__(self, url: str) -> None:
        self._link = RedisLink(url)
        self._redis = self._link.redis
        self._mapped = self._link.mapped
        self.address = self._link.address
        """The URL without credentials, for people."""

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def head(self) -> Head | None:
        """The current version, None when there is none. Raises StoreUnreachable, StoreCorrupt."""
        async with self._mapped():
            return _parse_head(cast("Mapping[bytes, bytes]", await self._redis.hgetall(HEAD_KEY)))

    async def load(self, version: int) -> StoredVersion:
        """A complete version. Raises StoreCorrupt (parts are missing or damaged), VersionPruned, StoreUnreachable."""
        raw_meta, document = await self._content(version, "document")
        meta = _parse_meta(raw_meta, version)
        # Of megabytes this takes milliseconds.
        text = await asyncio.to_thread(_inflated, document, version)
        return await asyncio.to_thread(StoredVersion(meta.head, meta.created, meta.note, meta.author, text).checked)

    async def sources(self, version: int) -> Mapping[str, str]:
        """The texts of the YAML files that a version was made of, by path.

        Raises StoreCorrupt, VersionPruned, StoreUnreachable.
        """
        _, raw = await self._content(version, "sources")
        try:
            return msgspec.json.decode(_inflated(raw, version), type=dict[str, str])
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"version {version} is damaged: {error}") from None

    async def _content(self, version: int, field: str) -> tuple[bytes, bytes]:
        """The version's meta, and ``field``."""
        async with self._mapped(CONTENT_TIMEOUT_S):
            found = await self._redis.hmget(version_key(version), ["meta", field, "pruned"])
            raw_meta, content, pruned = cast("list[bytes | None]", found)
        if raw_meta is not None and pruned is not None:
            raise VersionPruned(
                f"the content of version {version} is no longer kept: the store at {self.address} keeps that of the "
                f"newest {KEPT_WHOLE}"
            )
        if raw_meta is None or content is None:
            raise StoreCorrupt(f"version {version} is not whole: the store at {self.address} has lost a part of it")
        return raw_meta, content

    async def history(self, limit: int) -> list[Meta]:
        """What is known of the latest ``limit`` versions, newest first. Raises StoreCorrupt, StoreUnreachable.

        Numbers may be left out: a version goes past what gateways have seen, also where the store has lost that.
        """
        head = await self.head()
        found: list[Meta] = []
        highest = head.version if head is not None else 0
        while highest > 0 and len(found) < limit:
            numbers = range(highest, max(0, highest - limit), -1)
            async with self._mapped(CONTENT_TIMEOUT_S), self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hmget(version_key(number), ["meta", "pruned"])
                raw = cast("list[tuple[bytes | None, bytes | None]]", await pipe.execute())
            found += [
                msgspec.structs.replace(_parse_meta(meta, number), pruned=pruned is not None)
                for number, (meta, pruned) in zip(numbers, raw, strict=True)
                if meta is not None
            ]
            highest = numbers[-1] - 1
        return found[:limit]

    async def apply(
        self,
        policy_set: PolicySet,
        *,
        note: str = "",
        author: str = "",
        base: int | None = None,
        only_if_never_filled: bool = False,
        above: int = 0,
    ) -> Head:
        """Write one new version whole and make it current, or change nothing.

        ``base``: the version that has to be current. ``only_if_never_filled``: seed an empty store, and leave any other
        alone. ``above``: the new number is higher than this one too, as it is than any that a gateway is known to have.
        Old versions' contents are let go of.

        Raises VersionConflict when ``base`` is not current, when a store to be seeded holds a version, or when others
        keep applying at the same moment; StoreUnreachable, and then whether it was written is not known if the
        connection was lost at the very end.
        """
        document, sources = policy_set.deflated
        for _ in range(WRITE_ATTEMPTS):
            async with self._mapped(CONTENT_TIMEOUT_S), self._redis.pipeline(transaction=True) as pipe:
                await pipe.watch(HEAD_KEY)
                before = _parse_head(cast("Mapping[bytes, bytes]", await pipe.hgetall(HEAD_KEY)))
                _refuse_conflict(before, base=base, only_if_never_filled=only_if_never_filled)
                if before is not None:
                    above = max(above, highest_known(await self._known(), before.store_id))
                after = Head(
                    before.store_id if before is not None else uuid.uuid4().hex,
                    max(before.version if before is not None else 0, above) + 1,
                    policy_set.digest,
                )
                meta = Meta(
                    store_id=after.store_id,
                    version=after.version,
                    digest=after.digest,
                    created=int(wall_s()),
                    note=note,
                    author=author,
                    customers=len(policy_set.customers),
                )
                pipe.multi()  # type: ignore[no-untyped-call]
                key = version_key(after.version)
                pipe.delete(key)
                pipe.hset(key, mapping={"meta": msgspec.json.encode(meta), "document": document, "sources": sources})
                pipe.hset(
                    HEAD_KEY,
                    mapping={"store_id": after.store_id, "version": after.version, "digest": after.digest},
                )
                entry = AuditEntry(
                    at=wall_s(),
                    who=author,
                    what=f"policies: version {after.version}",
                    outcome="done",
                    parameters=msgspec.json.encode({"note": note, "digest": after.digest}).decode(),
                )
                pipe.xadd(AUDIT_KEY, cast("Any", fields(entry)), maxlen=KEPT, approximate=True)
                pipe.publish(CHANGES, str(after.version))
                try:
                    await pipe.execute()
                except WatchError:
                    continue
            await self._prune(after.version)
            return after
        raise VersionConflict("others apply at the same moment; nothing was written, try again")

    async def _prune(self, current: int) -> None:
        """What was written is written: where this fails the next one prunes."""
        try:
            async with self._mapped(CONTENT_TIMEOUT_S):
                await prune(self._redis, HEAD_KEY, current)
        except StoreUnreachable as error:
            log.warning("old versions of the policies could not be let go of: %s", error)

    async def watch(self, poll_s: float = POLL_S) -> AsyncGenerator[Head | None, None]:
        """The head now, and again at each announcement and at least each ``poll_s``. Ends by raising StoreError."""
        async with self._redis.pubsub() as changes:
            async with self._mapped():
                await changes.subscribe(CHANGES)
            while True:
                yield await self.head()
                async with self._mapped(poll_s + ANSWER_TIMEOUT_S):
                    await changes.get_message(ignore_subscribe_messages=True, timeout=poll_s)

    async def beat(self, replica: str, standing: Standing) -> tuple[Replica, ...]:
        """Say that gateway ``replica`` lives: it and all others, silent ones too, in order.

        Times are those of the server, as no two gateways' clocks agree. Raises StoreUnreachable, StoreCorrupt.
        """
        kept_ms = int(SILENT_KEPT_S * 1000)
        async with self._mapped():
            now_ms = await self._now_ms()
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(REPLICAS_KEY, {replica: now_ms})
                pipe.zremrangebyscore(REPLICAS_KEY, "-inf", now_ms - kept_ms)
                pipe.pexpire(REPLICAS_KEY, kept_ms)
                pipe.set(replica_key(replica), encode_standing(standing), px=kept_ms)
                pipe.zrange(REPLICAS_KEY, 0, -1, withscores=True)
                *_, known = await pipe.execute()
            return await self._standings(known, now_ms)

    async def replicas(self) -> tuple[Replica, ...]:
        """All gateways, those that are silent too. Raises StoreUnreachable, StoreCorrupt."""
        async with self._mapped():
            return await self._known()

    async def _known(self) -> tuple[Replica, ...]:
        now_ms = await self._now_ms()
        since_ms = now_ms - int(SILENT_KEPT_S * 1000)
        found = await self._redis.zrangebyscore(REPLICAS_KEY, since_ms, "+inf", withscores=True)
        return await self._standings(cast("list[tuple[bytes, float]]", found), now_ms)

    async def forget(self, *replicas: str) -> None:
        """These gateways have ended. One that has not is known again with its next sign of life.

        Raises StoreUnreachable, StoreCorrupt.
        """
        async with self._mapped(), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(REPLICAS_KEY, *replicas)
            pipe.delete(*(replica_key(replica) for replica in replicas))
            await pipe.execute()

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def _standings(self, known: Sequence[tuple[bytes, float]], now_ms: int) -> tuple[Replica, ...]:
        said = {name.decode(): max(0.0, (now_ms - at_ms) / 1000) for name, at_ms in known}
        ids = sorted(said)
        raw = cast("list[bytes | None]", await self._redis.mget([replica_key(one) for one in ids])) if ids else []
        return tuple(Replica(one, said[one], decode_standing(about)) for one, about in zip(ids, raw, strict=True))


def _inflated(raw: bytes, version: int) -> bytes:
    """A text as it was before it was deflated. Earlier releases wrote the JSON as it is. Raises StoreCorrupt."""
    try:
        return raw if raw.startswith(b"{") else zlib.decompress(raw)
    except zlib.error as error:
        raise StoreCorrupt(f"version {version} is damaged: {error}") from None


def _refuse_conflict(before: Head | None, *, base: int | None, only_if_never_filled: bool) -> None:
    if only_if_never_filled and before is not None:
        raise VersionConflict(f"the store holds {before} already")
    if base is not None and (before is None or before.version != base):
        now = f"version {before.version}" if before is not None else "empty"
        raise VersionConflict(f"the change is based on version {base}, and the store is at {now}; nothing was written")


def _parse_head(raw: Mapping[bytes, bytes]) -> Head | None:
    if not raw:
        return None
    try:
        head = Head(raw[b"store_id"].decode(), int(raw[b"version"]), raw[b"digest"].decode())
    except (KeyError, ValueError):
        raise StoreCorrupt(f"{HEAD_KEY} is not whole") from None
    if head.version < 1 or not head.store_id:
        raise StoreCorrupt(f"{HEAD_KEY} is not whole")
    return head


def _parse_meta(raw: bytes, version: int) -> Meta:
    try:
        meta = msgspec.json.decode(raw, type=Meta)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"version {version} is damaged: {error}") from None
    if meta.version != version:
        raise StoreCorrupt(f"version {version} is damaged: it says that it is version {meta.version}")
    return meta
