"""Takes one box from what it has to what it should have, one step after the other; the plan decides each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gateway.adapters.box_link import AlreadyGone, AlreadyThere, BoxLink, LoadingOff, Refused
from gateway.adapters.failures import Failures
from gateway.adapters.plan import Action, Held, Kind, Load, Plan, Seen, Terms, Unload, Verify, plan
from gateway.adapters.wanted import Former, Wanted
from gateway.clock import wall_s
from gateway.errors import UpstreamError

STILL_ALIVE_S = 10.0
"""For the base's one token, which tells an adapter that failed from a box that died of it."""

SUSPECTED = "may be what ends boxes: it is not loaded again while it is kept off them"

Outcome = Literal["begun", "done", "failed", "rolled_back"]

Lookup = Callable[[Set[str]], Awaitable[Mapping[str, Former]]]
"""Which of some names an earlier version of the policies named."""


@dataclass(frozen=True, slots=True)
class Step:
    """What became of an action at a box. ``text``: why it failed."""

    box: str
    action: Action
    outcome: Outcome
    text: str = ""
    took_s: float = 0.0


class Customers(Protocol):
    """Who asks the box for adapters meanwhile, where that is known here."""

    def in_flight(self) -> Set[str]:
        """The adapters that have requests in flight."""

    def suspected(self) -> Set[str]:
        """The adapters that may be what ends boxes, and are not asked for here."""

    def hold(self, adapter: str) -> None:
        """Send nobody there before ``let``: it is being loaded and has not answered yet."""

    def let(self, adapter: str, *, answers: bool) -> None:
        """That is over."""


class Nobody:
    """Of a process that answers no customers."""

    def in_flight(self) -> Set[str]:
        """Not known here. vLLM ends what runs in order: unloading drops the name only."""
        return frozenset()

    def suspected(self) -> Set[str]:
        """Not known here."""
        return frozenset()

    def hold(self, adapter: str) -> None:
        """Nobody is sent there from here."""

    def let(self, adapter: str, *, answers: bool) -> None:
        """Nobody was."""


@dataclass(slots=True)
class BoxReport:
    """How a box is, after it was looked at. ``trouble``: why it could not be dealt with at all; ``unreached``: as it
    did not answer. ``steps``: what was done and ended."""

    box: str
    plan: Plan = field(default_factory=Plan)
    steps: list[Step] = field(default_factory=list)
    trouble: str = ""
    unreached: bool = False

    @property
    def failed(self) -> list[Step]:
        """What did not work."""
        return [step for step in self.steps if step.outcome in ("failed", "rolled_back")]


class BoxSync:
    """One box over time. ``told`` hears of each step as it begins and as it ends."""

    def __init__(
        self,
        link: BoxLink,
        base_model: str,
        failures: Failures,
        lookup: Lookup,
        *,
        customers: Customers | None = None,
        told: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.link = link
        self._base_model = base_model
        self._failures = failures
        self._lookup = lookup
        self._customers = customers or Nobody()
        self._told = told
        self._unproven: set[str] = set()
        self._unasked: set[str] = set()

    @property
    def name(self) -> str:
        """The box's."""
        return self.link.spec.name

    async def look(self, wanted: Mapping[str, Wanted], terms: Terms, *, ask_all: bool = False) -> BoxReport:
        """What would be done now. ``ask_all``: also adapters that were there before are to be asked for a token."""
        report = BoxReport(self.name)
        if ask_all:
            self._unasked = set(wanted)
        await self._look(report, wanted, terms)
        return report

    async def run(
        self, wanted: Callable[[], Mapping[str, Wanted]], terms: Callable[[], Terms], *, ask_all: bool = False
    ) -> BoxReport:
        """Do all that can be done. ``wanted`` and ``terms``: what holds at the time of each step."""
        report = BoxReport(self.name)
        if ask_all:
            self._unasked = set(wanted())
        refused: set[str] = set()
        while await self._look(report, now_wanted := wanted(), terms()):
            open_actions = [
                one for one in report.plan.actions if not (isinstance(one, Unload) and one.adapter in refused)
            ]
            if not open_actions:
                break
            action = open_actions[0]
            self._told(Step(self.name, action, "begun"))
            began = _now()
            try:
                outcome, text = await self._do(action, now_wanted)
            except LoadingOff as error:
                outcome, text = "failed", str(error)
                report.trouble = text
            except UpstreamError as error:
                outcome, text = "failed", str(error)
                report.trouble, report.unreached = f"does not answer: {error}", True
            if outcome == "failed" and isinstance(action, Unload):
                refused.add(action.adapter)
            step = Step(self.name, action, outcome, text, _now() - began)
            report.steps.append(step)
            self._told(step)
            if report.trouble:
                break
        return report

    async def _look(self, report: BoxReport, wanted: Mapping[str, Wanted], terms: Terms) -> bool:
        try:
            listed = await self.link.listed()
        except Refused as error:
            report.trouble, report.unreached = str(error), True
            return False
        except UpstreamError as error:
            report.trouble, report.unreached = f"does not answer: {error}", True
            return False
        # What was lost with a restart, or taken by somebody else, is as if it had never been loaded.
        self._unasked &= listed.keys()
        former = await self._lookup(listed.keys() - wanted.keys())
        seen = Seen(
            listed,
            self.link.spec.max_cpu_loras,
            in_flight=self._customers.in_flight(),
            unproven=self._unproven,
            unasked=self._unasked,
        )
        held = {name: Held(name, Kind.FAILED, SUSPECTED) for name in self._customers.suspected() if name in wanted}
        held |= self._failures.held(self.name, wanted, _now())
        report.plan = plan(wanted, seen, former, held, terms, wall_s())
        return bool(report.plan.actions)

    async def _do(self, action: Action, wanted: Mapping[str, Wanted]) -> tuple[Outcome, str]:
        match action:
            case Load():
                return await self._load(action)
            case Verify():
                return await self._verify(action, wanted[action.adapter].path)
            case Unload():
                return await self._unload(action.adapter)

    async def _load(self, action: Load) -> tuple[Outcome, str]:
        adapter = action.adapter
        if adapter in self._unproven:
            self._let(adapter, answers=False)
            return await self._failed(
                adapter, action.path, Refused("the box said that it was loaded, and does not list it")
            )
        self._customers.hold(adapter)
        try:
            await self.link.load(adapter, action.path)
        except AlreadyThere:
            pass
        except (Refused, UpstreamError) as error:
            self._let(adapter, answers=False)
            if isinstance(error, LoadingOff):
                raise
            return await self._failed(adapter, action.path, error)
        except BaseException:
            self._let(adapter, answers=False)
            raise
        self._unproven.add(adapter)
        return "done", ""

    async def _verify(self, action: Verify, path: str | None) -> tuple[Outcome, str]:
        adapter = action.adapter
        try:
            await self.link.canary(adapter)
        except (Refused, UpstreamError) as error:
            self._unasked.discard(adapter)
            if not action.fresh:
                return await self._failed(adapter, path, error)
            text = f"does not answer: {error}"
            outcome: Outcome = "rolled_back"
            try:
                await self.link.unload(adapter)
            except AlreadyGone:
                pass
            except (Refused, UpstreamError) as still:
                outcome, text = "failed", f"{text}; and it could not be unloaded again: {still}"
            self._let(adapter, answers=False)
            harmless = isinstance(error, Refused) and error.harmless
            await self._failed(adapter, path, Refused(text, harmless=harmless))
            return outcome, text
        self._unasked.discard(adapter)
        self._failures.worked(self.name, adapter)
        self._let(adapter, answers=True)
        return "done", ""

    async def _unload(self, adapter: str) -> tuple[Outcome, str]:
        try:
            await self.link.unload(adapter)
        except AlreadyGone:
            pass
        except LoadingOff:
            raise
        except Refused as error:
            return "failed", str(error)
        return "done", ""

    async def _failed(self, adapter: str, path: str | None, error: Refused | UpstreamError) -> tuple[Outcome, str]:
        """Remember it, and find out whether the box has lived through it. Raises UpstreamError where it has not."""
        text = str(error)
        if isinstance(error, Refused) and error.harmless:
            self._failures.failed(self.name, adapter, path, text, _now())
            return "failed", text
        try:
            await self.link.canary(self._base_model, STILL_ALIVE_S)
        except (Refused, UpstreamError) as gone:
            self._failures.failed(self.name, adapter, path, text, _now(), lost=True)
            raise gone if isinstance(gone, UpstreamError) else UpstreamError(str(gone)) from error
        self._failures.failed(self.name, adapter, path, text, _now())
        return "failed", text

    def _let(self, adapter: str, *, answers: bool) -> None:
        self._unproven.discard(adapter)
        self._customers.let(adapter, answers=answers)


def _now() -> float:
    return asyncio.get_running_loop().time()
