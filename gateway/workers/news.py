"""What the watcher says to its workers."""

from __future__ import annotations

from gateway.accounts.exchange import Told
from gateway.fleet.back_off import Wait
from gateway.fleet.breaker import Finding
from gateway.fleet.duty import DutyFinding
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import EnginePace
from gateway.fleet.ttft import TtftFinding
from gateway.policy.versions import Head, StoredVersion
from gateway.workers.messages import Held, Message, Part

NOBODY = -1
WATCHER = -2
"""Whose a running trial is, where it is no worker's; workers count from 0."""


class Policy(Message):
    """A version of the policies, for the worker to compile."""

    store_id: str
    version: int
    digest: str
    created_s: int
    note: str
    author: str
    document: bytes

    def as_stored(self) -> StoredVersion:
        """The version itself."""
        head = Head(self.store_id, self.version, self.digest)
        return StoredVersion(head, self.created_s, self.note, self.author, self.document)


class Coming(Policy):
    """A version that the watcher has begun to compile. The worker does so too, and waits with it: it may be refused."""


class Begin(Message):
    """Take connections."""


class Cover(Message):
    """These workers take no connections now: take from their sockets too, and from no others but your own."""

    workers: list[int]


class BoxCounts(Part):
    """What all others have in flight at a box, the watcher's own probes among them."""

    key: str
    held: Held


class Counts(Message):
    """``number``: the last of the worker's own that is part of all that was said before this, and in this."""

    number: int
    boxes: list[BoxCounts]


class PairStanding(Part):
    """One adapter with which something went wrong at a box."""

    adapter: str | None
    missing: bool
    suspected: bool
    breaker: Finding
    trial: int
    held: bool = False


class Standing(Part):
    """Whether a box may be asked. ``trial``: whose its breaker's trial is."""

    key: str
    breaker: Finding
    trial: int
    duty: DutyFinding
    pairs: list[PairStanding]
    failing: list[str]
    refuses_key: bool
    opened_by_silence: bool
    last_error: str


class Load(Part):
    """How busy a box is, as far as all processes together have seen."""

    key: str
    limit: int
    slots: int
    held: tuple[str, ...]
    ttft: TtftFinding


class Engine(Part):
    """What a box said of itself."""

    key: str
    reading: EngineReading | None
    pace: EnginePace


class States(Message):
    """What has changed."""

    standings: list[Standing]
    loads: list[Load]
    engines: list[Engine]


class ProviderStanding(Part):
    """Whether a provider may be asked."""

    name: str
    breaker: Finding
    breaker_trial: int
    back_off: Wait
    back_off_trial: int
    silent: bool
    last_error: str


class ProvidersAre(Message):
    """All of them."""

    providers: list[ProviderStanding]


class HomesAre(Message):
    """The homes of a fleet's adapters."""

    fleet: str
    homes: dict[str, tuple[str, ...]]


class Eject(Message):
    """The box hangs or is gone: see :meth:`gateway.fleet.box.Box.eject`."""

    key: str
    why: str
    silent: bool


class OrdersAre(Message):
    """Who is degraded by order: by target, until which monotonic time; see :class:`gateway.orders.forced.Forced`."""

    ends: dict[str, float]


class AlarmsAre(Message):
    """The alarms that are on, as kind and subject."""

    alarms: list[tuple[str, str]]


class LitellmIs(Message):
    """Where the LiteLLM worker listens, and whether it runs."""

    path: str
    alive: bool


class AccountsTold(Message):
    """The answer to the worker's exchange of this number; None: the store did not answer."""

    number: int
    told: Told | None


class Ask(Message):
    """Say what your metrics are."""

    asked: int


class Drain(Message):
    """Take no new connections, and end when what runs has ended."""


class EndRequests(Message):
    """End what still runs."""


FromWatcher = (
    Policy
    | Coming
    | Begin
    | Cover
    | Counts
    | States
    | ProvidersAre
    | HomesAre
    | Eject
    | OrdersAre
    | AlarmsAre
    | LitellmIs
    | AccountsTold
    | Ask
    | Drain
    | EndRequests
)
