"""One run of `failsoft backend sync`, or many: reads what policies name, has each box made equal to it, and says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gateway.adapters.box_sync import BoxReport
from gateway.adapters.fleet_sync import FleetSync
from gateway.adapters.plan import Terms
from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.cli.speech import say
from gateway.cli.sync_report import SyncScreen, facts
from gateway.errors import FailsoftError, StoreError
from gateway.fleet.fleet import default_pool
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import BoxSpec, CompiledPolicy
from gateway.policy.diagnostics import meant
from gateway.policy.recompile import Compiler
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from gateway.policy.versions import Head
from gateway.upstream.pool import Pool

TICK_S = 1.0
"""How often --watch looks whether the store has a new version."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for besides which boxes."""

    dry_run: bool
    verify: bool
    replace: bool
    prune: bool
    as_json: bool


class Job:
    """One run of the command. ``source``: a folder, or the store."""

    def __init__(self, names: list[str], source: Path | PolicyStore, options: Options) -> None:
        self._names = names
        self._source = source
        self._options = options
        self._fleets: dict[str, FleetSync] = {}
        self._pools: dict[BoxSpec, Pool] = {}
        self._screen = SyncScreen(quiet=options.as_json)
        self._store = source if isinstance(source, PolicyStore) else None
        self._compiler = Compiler(os.environ)
        self._read_last: tuple[CompiledPolicy, Head] | None = None

    async def once(self) -> int:
        """Look, do, and say. The exit status. Raises StoreError, PolicyError."""
        try:
            policy, _ = await self._read()
            return await self._round(policy)
        finally:
            await self._close()

    async def watch(self, every_s: float) -> int:
        """The same again and again. Raises StoreError, PolicyError where nothing could be read yet."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            policy, head = await self._read()
            while not stop.is_set():
                await self._round(policy)
                await self._wait(stop, every_s, head)
                try:
                    policy, head = await self._read()
                except FailsoftError as error:
                    say(f"failsoft: goes on with what it last read: {error}", style="yellow")
        finally:
            await self._close()
        return 0

    async def _wait(self, stop: asyncio.Event, every_s: float, head: Head | None) -> None:
        """Until it is time, the store has another version, or something that was waited for may be over."""
        until = asyncio.get_running_loop().time() + every_s
        while (left_s := until - asyncio.get_running_loop().time()) > 0:
            try:
                async with asyncio.timeout(min(TICK_S, left_s)):
                    await stop.wait()
                return
            except TimeoutError:
                pass
            if self._store is not None:
                try:
                    if await self._store.head() != head:
                        return
                except StoreError:
                    continue  # said when it is time to read it

    async def _read(self) -> tuple[CompiledPolicy, Head | None]:
        if isinstance(self._source, Path):
            policy_set = await asyncio.to_thread(read_folder, self._source)
            return compile_policy(policy_set, version=0, store_id="", created_s=0, env=os.environ), None
        head = await self._source.head()
        if head is None:
            raise StoreError(
                f"the store at {self._source.address} holds no policies yet: see `failsoft policies apply`"
            )
        if self._read_last is None or self._read_last[1] != head:
            version = await self._source.load(head.version)
            self._read_last = await asyncio.to_thread(self._compiler.compile, version), head
        return self._read_last

    async def _round(self, policy: CompiledPolicy) -> int:
        chosen = self._chosen(policy)
        for fleet in {spec.fleet for spec in chosen}:
            if fleet not in self._fleets:
                self._fleets[fleet] = FleetSync(fleet, lambda: self._store, self._screen.step)
            self._fleets[fleet].follow(policy)
        reports = [await self._one(spec) for spec in chosen]
        self._screen.end(reports, dry_run=self._options.dry_run)
        if self._options.as_json:
            self._print(policy, reports)
        if any(report.plan.wrong or report.failed or (report.trouble and not report.unreached) for report in reports):
            return FOUND_WRONG
        return UNREACHABLE if any(report.unreached for report in reports) else 0

    async def _one(self, spec: BoxSpec) -> BoxReport:
        if spec.unavailable is not None:
            report = BoxReport(spec.name, trouble=f"cannot be asked: {spec.unavailable}", unreached=True)
            self._screen.plan(report)
            return report
        fleet, options = self._fleets[spec.fleet], self._options
        if spec not in self._pools:
            self._pools[spec] = default_pool(spec)
        box = fleet.box(spec, self._pools[spec])

        def terms() -> Terms:
            return fleet.terms(replace=options.replace, prune=options.prune)

        report = await box.look(fleet.wanted, terms(), ask_all=options.verify)
        self._screen.plan(report)
        if options.dry_run or report.trouble or not report.plan.actions:
            return report
        return await fleet.one(box, terms)

    def _chosen(self, policy: CompiledPolicy) -> list[BoxSpec]:
        known = {spec.name: spec for fleet in policy.fleets.values() for spec in fleet.boxes}
        for name in self._names:
            if name not in known:
                raise typer.BadParameter(f"there is no box {name} ({meant(name, known, noun='box')})", param_hint="BOX")
        return [known[name] for name in self._names] or list(known.values())

    def _print(self, policy: CompiledPolicy, reports: list[BoxReport]) -> None:
        found: dict[str, Any] = facts(reports, dry_run=self._options.dry_run)
        if policy.version:
            found["policy_version"] = policy.version
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    async def _close(self) -> None:
        for pool in self._pools.values():
            await pool.close()
        if self._store is not None:
            await self._store.close()
