"""Keeps the gateway's policies current, and keeps them at all when their store is away.

With a store (``--redis``) the store is the truth, and a folder only seeds a store that never held a version. Without,
the folder is the truth: it is applied to an embedded store at start and whenever its files have come to rest after a
change, so that both cases are followed by the same code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Literal

from gateway.errors import PolicyError, StateUnusable, StoreCorrupt, StoreError, VersionConflict
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.folder_watch import Fingerprint, changes, fingerprint
from gateway.policy.follow_step import FollowStep, follow_step
from gateway.policy.policy_alarms import AlarmSink, PolicyAlarms, first_line, writing
from gateway.policy.recompile import Compiler
from gateway.policy.reconnect import patiently
from gateway.policy.snapshot import Memory, Snapshot
from gateway.policy.standing import Refusal
from gateway.policy.state_dir import prepare_state_dir
from gateway.policy.store import PolicyStore
from gateway.policy.succession import with_predecessors
from gateway.policy.validate import read_to_write
from gateway.policy.versions import AT_START, FROM_FOLDER, Head, StoredVersion
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

Source = Literal["none", "store", "folder", "snapshot"]
OnChange = Callable[[CompiledPolicy], None]


class PolicyFollower:
    """``current`` is the version in force, replaced whole; None until there is one.

    Give ``redis_url``, or ``folder``, or both (then the folder seeds an empty store). ``env`` holds what ``${NAME}``
    refers to. Raises ValueError when neither is given or the URL is none.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        env: Mapping[str, str],
        alarms: AlarmSink,
        redis_url: str | None = None,
        folder: Path | None = None,
    ) -> None:
        if redis_url is None and folder is None:
            raise ValueError("give --redis URL or --policies DIR: there is nothing to take policies from")
        self._state_dir = state_dir
        self._compiler = Compiler(env)
        self._sink, self._alarms = alarms, PolicyAlarms(alarms)
        self._folder, self._redis_url = folder, redis_url
        self._embedded = EmbeddedValkey(state_dir) if redis_url is None else None
        self._store = PolicyStore(redis_url) if redis_url is not None else None
        self._snapshot = Snapshot(state_dir)
        self._memory = Memory()
        self._written: Memory | None = None
        self._refused: Head | None = None
        self._outranked: Head | None = None
        self._in_force: Head | None = None
        self._folder_read = False
        self._folder_error: PolicyError | None = None
        self._before_change: list[OnChange] = []
        self._listeners: list[OnChange] = []
        self._tasks = TaskSet()
        self._turn = asyncio.Lock()
        self._started = False
        self.current: CompiledPolicy | None = None
        self.version: StoredVersion | None = None
        """What ``current`` was compiled from."""
        self.refusal: Refusal | None = None
        """The store's current version, where it cannot be used."""
        self.on_refusal: Callable[[], None] = lambda: None
        self.on_coming: Callable[[StoredVersion], None] = lambda version: None
        """Told of each version that is about to be compiled."""
        self._truth: Source = "store" if self._embedded is None else "folder"
        self.source: Source = "none"
        """Where the version in force was last confirmed: ``snapshot`` until the store says that it is current."""

    @property
    def embedded(self) -> EmbeddedValkey | None:
        """The store of our own, where no other was given."""
        return self._embedded

    @property
    def store(self) -> PolicyStore:
        """The store that is followed. Raises StoreError while the embedded one is not up."""
        if self._store is None:
            raise StoreError("the embedded store is not up")
        return self._store

    @property
    def redis_url(self) -> str:
        """Where the store is, for whatever else is kept there. Raises RuntimeError before ``start``, without one."""
        if self._embedded is not None:
            return self._embedded.url
        if self._redis_url is None:
            raise RuntimeError("there is no store")
        return self._redis_url

    def before_change(self, *prepare: OnChange) -> None:
        """Call each ``prepare`` in a thread with each version before it comes into force, for what takes long."""
        self._before_change += prepare

    def on_change(self, listener: OnChange) -> None:
        """Call ``listener`` in the event loop with each version that comes into force, and with the one that is."""
        self._listeners.append(listener)
        if self._started and self.current is not None:
            self._notify(listener, self.current)

    async def start(self) -> None:
        """Bring the best version that can be had into force, and follow from there.

        With a store that is away, and no snapshot, there is none yet: ``current`` stays None until the store is back.
        Raises PolicyError when nothing is known and the folder does not hold together; StateUnusable when the state
        folder cannot be used; StoreError when the embedded store does not start and nothing is known. After an error
        nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        await asyncio.to_thread(prepare_state_dir, self._state_dir)
        await self._recall()
        seen = await asyncio.to_thread(fingerprint, self._folder) if self._folder is not None else ()
        failure: StoreError | None = None
        try:
            await self._open()
            await self._observe(await self.store.head())
        except StateUnusable:
            raise
        except PolicyError as error:
            self._folder_error = error
        except StoreError as error:
            failure = error
            self._alarms.store_away(error)
        if self.current is None and self._folder_error is not None:
            raise self._folder_error
        if self.current is None and self._embedded is not None:
            raise failure or StoreError("the embedded store holds no usable version")
        self._started = True
        if self.current is not None:
            for listener in self._listeners:
                self._notify(listener, self.current)
        self._tasks.spawn(self._follow(), name="policy-follow")
        if self._embedded is not None and self._folder is not None:
            self._tasks.spawn(self._follow_folder(self._folder, seen), name="policy-folder")

    async def close(self) -> None:
        """Stop following, and the embedded store with it. The version in force stays readable."""
        await self._tasks.close()
        if self._store is not None:
            await self._store.close()
        if self._embedded is not None:
            await self._embedded.stop()

    async def _open(self) -> None:
        """Have a store to ask."""
        if self._embedded is not None and not self._embedded.started:
            await self._embedded.start()
            self._store = PolicyStore(self._embedded.url)

    # What the store says

    async def _follow(self) -> None:
        async for attempt in patiently():
            with attempt:
                try:
                    await self._open()
                    await self._watch()
                except StoreError as error:
                    self._alarms.store_away(error)
                    raise

    async def _watch(self) -> None:
        """Follow until the store fails. Raises StoreError."""
        self._refused = None  # a store that comes back may hold whole what it held in part
        async with aclosing(self.store.watch()) as heads:
            async for head in heads:
                self._alarms.store_answers()
                try:
                    await self._observe(head)
                except PolicyError as error:
                    self._alarms.folder_invalid(error)

    async def _observe(self, head: Head | None) -> None:
        """Act on what the store holds. Raises StoreError; PolicyError when the folder has to seed it and is invalid."""
        async with self._turn:
            step = self._step(head)
            if step is FollowStep.SEED and self._folder is not None:
                await self._seed(self._folder)
                head = await self.store.head()
            elif self._embedded is not None and self._folder is not None and self._must_apply(step):
                await self._apply_folder(self._folder)
                head = await self.store.head()
            step = self._step(head)
            if step is FollowStep.LOAD and head is not None:
                await self._load(head)
                step = self._step(head)
            self._alarms.step(step, head)
            if step is FollowStep.KEEP:
                self.source = self._truth

    def _must_apply(self, step: FollowStep) -> bool:
        """Whether our own store lacks what the folder says: at start, and after a loss."""
        return not self._folder_read or step in (FollowStep.EMPTY, FollowStep.BEHIND, FollowStep.WAIT)

    def _step(self, head: Head | None) -> FollowStep:
        return follow_step(
            head,
            in_force=self._in_force,
            refused=self._refused,
            outranked=self._outranked,
            seen=self._memory.seen,
            ever_filled=self._memory.ever_filled(embedded=self._embedded is not None),
            can_seed=self._folder is not None and self._embedded is None,
        )

    async def _load(self, head: Head) -> None:
        self._memory = self._memory.having_seen(head, embedded=self._embedded is not None)
        try:
            version = await self.store.load(head.version)
            if version.head != head:
                raise StoreCorrupt(f"{version.head} lies in its place")
            if self._is_outranked(version):
                self._outranked = head
                return
            self.on_coming(version)
            compiled = await asyncio.to_thread(self._compiled, version)
        except (StoreCorrupt, PolicyError) as error:
            self._refused = head
            self._alarms.version_refused(head, error)
            self.refusal = Refusal(head, first_line(error))
            self.on_refusal()
        else:
            self._put_in_force(version, compiled, self._truth)
            self._memory = self._memory.in_force(version)
        await self._remember()

    def _compiled(self, version: StoredVersion) -> CompiledPolicy:
        """In a thread. Raises PolicyError."""
        compiled = with_predecessors(self._compiler.compile(version), self.current)
        for prepare in self._before_change:
            prepare(compiled)
        return compiled

    def _is_outranked(self, version: StoredVersion) -> bool:
        """Whether it is the older of two contents under the number that is in force."""
        now = self.version
        if now is None or (now.head.store_id, now.head.version) != (version.head.store_id, version.head.version):
            return False
        self._alarms.number_given_twice(now, version)
        return version.rank < now.rank

    def _put_in_force(self, version: StoredVersion, compiled: CompiledPolicy, source: Source) -> None:
        self.current, self.source, self.version, self.refusal = compiled, source, version, None
        self._in_force = self._alarms.in_force = version.head
        log.info("policies: %s is in force, with %d customers", version.head, len(compiled.customers))
        if self._started:
            for listener in self._listeners:
                self._notify(listener, compiled)

    def _notify(self, listener: OnChange, compiled: CompiledPolicy) -> None:
        try:
            listener(compiled)
        except Exception:
            log.exception("a listener failed on version %d of the policies", compiled.version)

    # What the folder says

    async def _seed(self, folder: Path) -> None:
        policy_set = await asyncio.to_thread(read_to_write, folder)
        self._alarms.folder_valid()
        try:
            head = await self.store.apply(policy_set, note=f"from {folder}", author=AT_START, only_if_never_filled=True)
        except VersionConflict:
            log.info("policies: another gateway seeded the store meanwhile")
        else:
            log.info("policies: the store was empty and is seeded with %s from %s", head, folder)

    async def _apply_folder(self, folder: Path) -> None:
        """Make the folder's content the current version of our own store, unless it is. Raises StoreError."""
        try:
            policy_set = await asyncio.to_thread(read_to_write, folder)
        except PolicyError as error:
            self._folder_read = True
            self._folder_error = error
            self._alarms.folder_invalid(error)
            return
        head = await self.store.head()
        floor = self._memory.seen.get(head.store_id, 0) if head is not None else 0
        if head is None or head.digest != policy_set.digest or head.version < floor:
            with writing(self._sink):
                author = FROM_FOLDER if self._folder_read else AT_START
                await self.store.apply(policy_set, note=f"from {folder}", author=author, above=floor)
        self._folder_read = True
        self._folder_error = None
        self._alarms.folder_valid()

    async def _follow_folder(self, folder: Path, seen: Fingerprint) -> None:
        async with aclosing(changes(folder, seen)) as changed:
            async for _ in changed:
                async for attempt in patiently():
                    with attempt:
                        async with self._turn:
                            await self._apply_folder(folder)

    # What a restarted gateway still knows

    async def _recall(self) -> None:
        """Put the snapshot's version in force until the store says more."""
        try:
            self._memory = await asyncio.to_thread(self._snapshot.read)
        except (StoreCorrupt, OSError) as error:
            self._memory = Memory(damaged=True)
            self._alarms.snapshot_unreadable(error)
            return
        self._written = self._memory
        version = self._memory.last_good
        if version is None:
            return
        try:
            compiled = await asyncio.to_thread(self._compiled, version)
        except PolicyError as error:
            self._alarms.snapshot_unreadable(error)
            return
        self._put_in_force(version, compiled, "snapshot")

    async def _remember(self) -> None:
        if self._memory == self._written:
            return
        try:
            await asyncio.to_thread(self._snapshot.write, self._memory)
        except OSError as error:
            self._alarms.snapshot_unwritable(self._snapshot.path, error)
        else:
            self._written = self._memory
            self._alarms.snapshot_written()
