"""Events: a bounded ring that can be read from any point and waited on. Alarms: on until they are over."""

from __future__ import annotations

import asyncio

import pytest

from gateway.observe.alarms import Alarms
from gateway.observe.events import Event, Events
from gateway.observe.metrics import GatewayMetrics, Registry


def sequences(events: tuple[Event, ...]) -> list[int]:
    return [event.sequence for event in events]


def test_events_are_read_from_any_point() -> None:
    events = Events(10)
    for n in range(5):
        events.add("tick", n=n)
    assert sequences(events.since(0)) == [1, 2, 3, 4, 5]
    assert sequences(events.since(3)) == [4, 5]
    assert events.since(5) == ()
    assert events.since(4)[0].fields == {"n": 4}


def test_the_ring_forgets_the_oldest() -> None:
    events = Events(3)
    for _ in range(5):
        events.add("tick")
    assert sequences(events.since(0)) == [3, 4, 5]
    assert sequences(events.since(4)) == [5]


def test_a_reader_from_before_a_restart_reads_from_the_start() -> None:
    events = Events(3)
    events.add("tick")
    assert sequences(events.since(700)) == [1]


async def test_waiting_ends_with_the_next_event_for_everyone_who_waits() -> None:
    events = Events(3)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(events.wait(0))
        second = group.create_task(events.wait(0))
        await asyncio.sleep(0)
        events.add("tick")
    assert sequences(first.result()) == sequences(second.result()) == [1]
    assert sequences(await events.wait(0)) == [1]


async def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    events = Events(3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await events.wait(0)
    events.add("tick")
    assert events._waiting == set()


def test_each_event_is_echoed() -> None:
    seen: list[Event] = []
    events = Events(3, echo=seen.append)
    added = events.add("tick", kind_of="fields may have any name")
    assert seen == [added]
    assert added.as_json()["fields"] == {"kind_of": "fields may have any name"}


def an_alarms() -> tuple[Alarms, GatewayMetrics, Events]:
    metrics, events = GatewayMetrics(Registry()), Events(10)
    return Alarms(metrics, events), metrics, events


def test_an_alarm_is_on_until_it_is_over() -> None:
    alarms, metrics, events = an_alarms()
    alarms.on("box_unauthorized", "a100-a", "the box refuses our key")
    assert alarms.is_on("box_unauthorized", "a100-a")
    assert [(a.kind, a.subject, a.message) for a in alarms.current()] == [
        ("box_unauthorized", "a100-a", "the box refuses our key")
    ]
    assert metrics.alarm.value("box_unauthorized", "a100-a") == 1
    alarms.off("box_unauthorized", "a100-a")
    assert alarms.current() == ()
    assert metrics.alarm.value("box_unauthorized", "a100-a") == 0
    assert [event.kind for event in events.since(0)] == ["alarm_on", "alarm_off"]


def test_an_alarm_raised_again_keeps_its_time_and_takes_the_new_message() -> None:
    alarms, _, events = an_alarms()
    alarms.on("k", "s", "first")
    since = alarms.current()[0].since_s
    alarms.on("k", "s", "second")
    assert [(a.message, a.since_s) for a in alarms.current()] == [("second", since)]
    assert events.newest == 1


def test_ending_an_alarm_that_is_not_on_is_no_event() -> None:
    alarms, _, events = an_alarms()
    alarms.off("k", "s")
    assert events.newest == 0
