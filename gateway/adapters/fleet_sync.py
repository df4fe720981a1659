"""Takes all boxes of one fleet to what policies name, one box after the other.

One after the other, as an adapter may end the engine that loads it: then the others are still there, and do not get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set

from gateway.adapters.box_link import BoxLink
from gateway.adapters.box_sync import BoxReport, BoxSync, Customers, Step
from gateway.adapters.failures import Failures
from gateway.adapters.former import FormerNames
from gateway.adapters.plan import Terms
from gateway.adapters.wanted import Former, Wanted, dropped, wanted_of
from gateway.clock import wall_s
from gateway.policy.compiled import BoxSpec, CompiledPolicy, FleetSpec
from gateway.policy.store import PolicyStore
from gateway.upstream.pool import Pool


class FleetSync:
    """What is known of one fleet. ``store``: where earlier versions of the policies are, None where that is not known;
    ``told`` hears of each step."""

    def __init__(
        self,
        name: str,
        store: Callable[[], PolicyStore | None],
        told: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.name = name
        self.failures = Failures()
        self.wanted: Mapping[str, Wanted] = {}
        self._spec: FleetSpec | None = None
        self._store = store
        self._told = told
        self._former = FormerNames(name)
        self._boxes: dict[str, BoxSync] = {}

    @property
    def spec(self) -> FleetSpec:
        """The fleet, as the policy in force has it. Raises LookupError before the first ``follow``."""
        if self._spec is None:
            raise LookupError(f"fleet {self.name} follows no policy yet")
        return self._spec

    def follow(self, policy: CompiledPolicy, wanted: Mapping[str, Wanted] | None = None) -> None:
        """From now on boxes are to have what this version names: ``wanted``, where that was worked out before."""
        before, self.wanted = self.wanted, wanted_of(policy, self.name) if wanted is None else wanted
        self._spec = policy.fleets[self.name]
        self._former.learned(dropped(before, self.wanted, wall_s()))
        self._former.named(self.wanted.keys())
        self.failures.keep(self.wanted)

    def terms(self, *, unload: bool = True, replace: bool = False, prune: bool = False) -> Terms:
        """What holds for this fleet."""
        return Terms(self.spec.sync.grace_s, replace=replace, prune=prune, unload=unload)

    def box(self, spec: BoxSpec, pool: Pool, customers: Customers | None = None) -> BoxSync:
        """The box behind ``pool``: what is known of it stays as long as that is the same."""
        known = self._boxes.get(spec.name)
        if known is None or not known.link.is_at(pool):
            known = self._boxes[spec.name] = BoxSync(
                BoxLink(spec, pool),
                self.spec.base_model,
                self.failures,
                self._look_up,
                customers=customers,
                told=self._told,
            )
        known.link.spec = spec
        return known

    async def one(self, box: BoxSync, terms: Callable[[], Terms], *, ask_all: bool = False) -> BoxReport:
        """Do all that can be done on one box."""
        return await box.run(lambda: self.wanted, terms, ask_all=ask_all)

    async def _look_up(self, names: Set[str]) -> Mapping[str, Former]:
        return await self._former.look(self._store(), names)

    def next_try_at(self) -> float | None:
        """When the next of what failed is due, by the loop's clock."""
        return self.failures.next_at(asyncio.get_running_loop().time())
