"""The log: lines for people or for machines, never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.log import LogFormat, configure_logging, log_event, redact
from gateway.observe.metrics import GatewayMetrics, Registry


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    yield io.StringIO()
    root.handlers, root.level = before, level


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_json_lines_are_one_object_each_with_the_exception_inside(stream: io.StringIO) -> None:
    configure_logging("json", stream=stream)
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        logging.getLogger("gateway.test").exception("it %s", "failed")
    (line,) = lines(stream)
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "gateway.test", "it failed")
    assert entry["time"].endswith("+00:00")
    assert "no\nsuch thing" in entry["exception"]


def test_lines_for_people_show_the_fields_of_an_event(stream: io.StringIO) -> None:
    configure_logging("human", stream=stream)
    Events(3, echo=log_event).add("box_state", box="a100-a", to="open", why="two probes silent", detail="")
    (line,) = lines(stream)
    assert line.endswith('info    failsoft.events: box_state box=a100-a to=open why="two probes silent" detail=""')


@pytest.mark.parametrize("format", ["human", "json"])
def test_an_alarm_is_a_warning(stream: io.StringIO, format: LogFormat) -> None:
    configure_logging(format, stream=stream)
    Alarms(GatewayMetrics(Registry()), Events(3, echo=log_event)).on("policy_store_empty", "store", "found empty")
    (line,) = lines(stream)
    assert "warning" in line
    assert "policy_store_empty" in line


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ('{"authorization": "bearer abc"}', '{"authorization": "bearer ***"}'),
        ("redis://user:hunter2@10.0.0.1:6379/0", "redis://***@10.0.0.1:6379/0"),
        ("redis://:hunter2@10.0.0.1:6379/0", "redis://***@10.0.0.1:6379/0"),
        ("key sk-proj-abcdef123456 refused", "key *** refused"),
        ("http://10.0.0.1:8000/v1 and me@example.org: ok", "http://10.0.0.1:8000/v1 and me@example.org: ok"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize("format", ["human", "json"])
def test_a_secret_in_a_traceback_does_not_reach_the_log(stream: io.StringIO, format: LogFormat) -> None:
    configure_logging(format, stream=stream)
    try:
        raise RuntimeError("refused: Bearer topsecret")
    except RuntimeError:
        logging.getLogger("x").exception("with sk-abcdefgh1234")
    assert "topsecret" not in stream.getvalue()
    assert "sk-abcdefgh1234" not in stream.getvalue()
