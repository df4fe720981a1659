"""What a worker says to its watcher, as msgpack over a socket pair; ``news`` has what the watcher says.

A worker numbers what it says of boxes and providers, and the watcher names the last number that its own news has
taken in: what is older than a worker's own finding must not undo it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.accounts.exchange import Ask
from gateway.fleet.blame import Failure
from gateway.fleet.provider_health import ProviderFailure
from gateway.observe.export import Export

Kind = Literal["usual", "forced", "trial"]


class Message(msgspec.Struct, array_like=True, tag=True):
    """One frame."""


class Part(msgspec.Struct, array_like=True):
    """A piece of one."""


# From a worker.


class Held(Part):
    """What one process has in flight at a box. ``silent``: streams without content yet; ``awaited``: all without;
    ``streams``: sent since the box's metrics were read at ``reading_at``."""

    counts: dict[str | None, int] = {}
    silent: int = 0
    awaited: int = 0
    streams: int = 0
    reading_at: float | None = None


class Sample(Part):
    """A time to first token, or what was waited in vain: see :meth:`gateway.fleet.box_load.BoxLoad.first_content`."""

    ttft_s: float
    silent_before: int
    in_flight: int
    at: float
    gave_up: bool


class BoxReport(Part):
    """What happened at one box since the last report; ``held`` is absolute.

    ``used``: adapters that requests were sent for, the latest last. ``successes``: those that told the box's breaker
    nothing but that it answers. ``last_life``: monotonic seconds.
    """

    key: str
    held: Held
    used: list[str]
    samples: list[Sample]
    successes: int
    last_life: float | None


class Report(Message):
    """Sent a few milliseconds after something happened. ``traffic``: requests by fleet and adapter, now and then."""

    number: int
    boxes: list[BoxReport]
    traffic: dict[str, dict[str, int]] = {}


class Pass(Part):
    """How an attempt was let in by a breaker or back-off. ``trial``: the number under which its trial began, or 0."""

    epoch: int
    kind: Kind
    trial: int = 0


class Outcome(Message):
    """An attempt at a box told more than that the box answers. ``failure``: None where it succeeded."""

    number: int
    key: str
    adapter: str | None
    at: float
    box: Pass
    pair: Pass | None
    failure: Failure | None


class Trial(Message):
    """A trial of a box's breaker (``of_box``) or of the adapter's there began under this number; or the one that began
    under the number ``over`` is over."""

    number: int
    key: str
    adapter: str | None
    at: float
    of_box: bool
    over: int = 0


class ProviderOutcome(Message):
    """An attempt at a provider told more than that it answers."""

    number: int
    name: str
    at: float
    breaker: Pass
    turn: Pass
    failure: ProviderFailure | None


class ProviderTrial(Message):
    """The same of a provider's breaker, or of its back-off."""

    number: int
    name: str
    at: float
    of_breaker: bool
    over: int = 0


class InForce(Message):
    """A policy version is in force in the worker; it needs to hear of all boxes. ``digest``: of its content."""

    version: int
    digest: str


class Ready(Message):
    """It takes connections."""


class Leaving(Message):
    """It takes connections no more, and ends once what runs has ended."""


class AlarmOn(Message):
    """An alarm of the data plane's."""

    kind: str
    subject: str
    text: str


class AlarmOff(Message):
    """It is over."""

    kind: str
    subject: str


class Happened(Message):
    """An event of the data plane's."""

    kind: str
    fields: dict[str, str | int | float]


class Proven(Message):
    """A customer's request has tried a way to fall back; see :class:`gateway.drills.witness.FallbackWitness`."""

    key: str
    model: str
    error: str


class AccountsAsk(Message):
    """What it tells the other processes about limits and usage; an answer of this number is due."""

    number: int
    ask: Ask


class Telemetry(Message):
    """The worker's own metrics; ``asked``: the number of the question, 0 where there was none."""

    asked: int
    in_flight: int
    export: Export


FromWorker = (
    Report
    | Outcome
    | Trial
    | ProviderOutcome
    | ProviderTrial
    | InForce
    | Ready
    | Leaving
    | AlarmOn
    | AlarmOff
    | Happened
    | Proven
    | AccountsAsk
    | Telemetry
)
