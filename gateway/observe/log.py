"""The log: lines for people, or JSON lines for machines, on standard error, without secrets.

Nobody logs a key on purpose; as a second fence each finished line is searched for what looks like one.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from typing import Literal, TextIO

from gateway.observe.alarms import ALARM_ON
from gateway.observe.events import Event

LogFormat = Literal["human", "json"]

_SECRETS = re.compile(
    r"(?P<bearer>\bbearer\s+)[^\s\"',\\]+"
    r"|(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@\"']*:[^\s/@\"']*@"
    r"|\b(?:sk-|fsa_)[A-Za-z0-9_-]{6,}",
    re.IGNORECASE,
)
"""A bearer token, the user part of a URL, a key as OpenAI and many others word theirs, our own admin tokens."""

_event_log = logging.getLogger("failsoft.events")


def redact(text: str) -> str:
    """``text`` with everything that looks like a secret replaced by ``***``."""
    return _SECRETS.sub(_without_secret, text)


def _without_secret(match: re.Match[str]) -> str:
    if match["bearer"]:
        return match["bearer"] + "***"
    if match["scheme"]:
        return match["scheme"] + "***@"
    return "***"


def log_event(event: Event) -> None:
    """Log one event: the ``echo`` of :class:`gateway.observe.events.Events`."""
    level = logging.WARNING if event.kind == ALARM_ON else logging.INFO
    _event_log.log(level, "%s", event.kind, extra={"fields": event.fields})


class HumanFormatter(logging.Formatter):
    """``12:34:56.789 warning failsoft.events: box_state box=a100-a to=open``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        parts = [f"{at} {record.levelname.lower():7} {record.name}: {record.getMessage()}"]
        for name, value in getattr(record, "fields", {}).items():
            text = str(value)
            parts.append(f"{name}={json.dumps(text) if ' ' in text or not text else text}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        entry: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields:
            entry["fields"] = dict(fields)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(entry, default=str, ensure_ascii=False))


def configure_logging(format: LogFormat = "human", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to ``stream`` (standard error). Uvicorn has to be given ``log_config=None``."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else HumanFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # One line an access is what /metrics is for; a client's connection that ended early is no news.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
