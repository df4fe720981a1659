"""Alarms and events of a worker's data plane: told to the watcher, who has those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.observe.alarms import Alarms
from gateway.observe.events import Event, Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.workers.messages import AlarmOff, AlarmOn, Happened, Message


class ToldAlarms(Alarms):
    """Knows which are on, so that not every answer says that one is over."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        metrics = GatewayMetrics(Registry())
        super().__init__(metrics, Events(capacity=1))
        self._send = send
        self._known: set[tuple[str, str]] = set()

    def on(self, kind: str, subject: str, message: str) -> None:
        """Raise an alarm."""
        self._known.add((kind, subject))
        self._send(AlarmOn(kind, subject, message))

    def off(self, kind: str, subject: str) -> None:
        """The condition is over."""
        if (kind, subject) in self._known:
            self._known.discard((kind, subject))
            self._send(AlarmOff(kind, subject))

    def is_on(self, kind: str, subject: str) -> bool:
        """Whether this alarm is on, as far as is known here."""
        return (kind, subject) in self._known

    def follow(self, alarms: Iterable[tuple[str, str]]) -> None:
        """These are on."""
        self._known = set(alarms)


def told_events(send: Callable[[Message], None]) -> Events:
    """Events that are told, and not kept."""

    def tell(event: Event) -> None:
        send(Happened(event.kind, dict(event.fields)))

    return Events(capacity=1, echo=tell)
