"""An adapter that is being loaded is missing to customers until it has answered."""

from __future__ import annotations

from gateway.fleet.pairs import ALARM, PairFault, Pairs
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry


def pairs() -> tuple[Pairs, Alarms]:
    alarms = Alarms(GatewayMetrics(Registry()), Events())
    return Pairs("a", alarms, lambda state: None), alarms


def test_until_it_is_let_nobody_is_sent_there_however_long_that_takes_and_whatever_the_box_lists() -> None:
    found, _ = pairs()
    found.hold("v4", 0.0)
    found.listed(frozenset({"v4"}))
    assert not found.overdue(1000.0)
    assert found.fault("v4", 1000.0) is PairFault.MISSING
    assert found.begin("v4", 1000.0, force=False) is None
    found.let("v4", answers=True)
    assert found.fault("v4", 1000.0) is None
    assert found.known == {}


def test_one_that_was_rolled_back_is_missing_as_any_other_and_is_told_of_when_it_is_asked_for() -> None:
    found, alarms = pairs()
    found.hold("v4", 0.0)
    found.let("v4", answers=False)
    assert found.fault("v4", 0.5) is PairFault.MISSING
    assert found.fault("v4", 1000.0) is None, "somebody may find out"
    found.lacks("v4", None, "status 404", 1000.0)
    assert alarms.is_on(ALARM, "a/v4")


def test_one_that_may_be_what_ends_boxes_is_not_trusted_for_one_token() -> None:
    found, _ = pairs()
    found.suspect("v4", 0.0, 60.0)
    found.hold("v4", 0.0)
    found.let("v4", answers=True)
    assert found.fault("v4", 1.0) is PairFault.SUSPECTED
