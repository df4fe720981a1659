"""Alarms: conditions that a person has to look at, on until they are over.

Each is a kind (``box_unauthorized``, ``adapter_missing``, ``policy_store_empty``, …) and a subject (which box,
provider or customer). Both are bounded by the policy, as they are labels of a metric.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.clock import wall_s
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics

ALARM_ON = "alarm_on"
ALARM_OFF = "alarm_off"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm that is on. ``since_s`` is Unix time."""

    kind: str
    subject: str
    message: str
    since_s: float

    def as_json(self) -> dict[str, object]:
        """For the admin API."""
        return {"kind": self.kind, "subject": self.subject, "message": self.message, "since": round(self.since_s, 3)}


class Alarms:
    """The alarms that are on now, mirrored in a metric and in the events."""

    def __init__(self, metrics: GatewayMetrics, events: Events) -> None:
        self._metrics = metrics
        self._events = events
        self._on: dict[tuple[str, str], Alarm] = {}

    def on(self, kind: str, subject: str, message: str) -> None:
        """Raise an alarm. One that is on already keeps its time and takes the new message, without a new event."""
        key = (kind, subject)
        before = self._on.get(key)
        if before is not None:
            if before.message != message:
                self._on[key] = Alarm(kind, subject, message, before.since_s)
            return
        self._on[key] = Alarm(kind, subject, message, wall_s())
        self._metrics.alarm.set(1, kind, subject)
        self._events.add(ALARM_ON, alarm=kind, subject=subject, message=message)

    def off(self, kind: str, subject: str) -> None:
        """The condition is over. Nothing happens when the alarm was not on."""
        if self._on.pop((kind, subject), None) is None:
            return
        self._metrics.alarm.remove(kind, subject)
        self._events.add(ALARM_OFF, alarm=kind, subject=subject)

    def is_on(self, kind: str, subject: str) -> bool:
        """Whether this alarm is on."""
        return (kind, subject) in self._on

    def current(self) -> tuple[Alarm, ...]:
        """All alarms that are on, oldest first."""
        return tuple(self._on.values())
