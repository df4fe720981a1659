"""What an upstream says instead of an answer, and how long to wait where it names a time."""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_tz

from gateway.clock import wall_s
from gateway.errors import UpstreamStatus
from gateway.upstream.exchange import Exchange


async def read_refusal(exchange: Exchange, limit: int) -> UpstreamStatus:
    """The error that an answer with a status other than 200 stands for; its body may have ``limit`` bytes.

    :raises UpstreamError: as :meth:`Exchange.read_all`. The exchange is the caller's to close.
    """
    body = await exchange.read_all(limit)
    return UpstreamStatus(
        exchange.status,
        body,
        content_type=exchange.header(b"content-type") or b"",
        retry_after_s=retry_after_s(
            (exchange.header(b"retry-after") or b"").decode("latin-1"),
            (exchange.header(b"date") or b"").decode("latin-1"),
            now_s=wall_s(),
        ),
    )


def retry_after_s(value: str, date: str, *, now_s: float) -> float | None:
    """The seconds that a ``Retry-After`` of ``value`` asks for: a number of them, or an HTTP date (RFC 9110, 10.2.3).

    A date is held against the answer's own ``date``, as clocks differ, or where that says nothing against ``now_s``,
    Unix time. None where ``value`` is neither.
    """
    if value.isascii() and value.isdigit():
        return float(value)
    until_s = _unix_s(value)
    if until_s is None:
        return None
    said_s = _unix_s(date)
    return max(0.0, until_s - (now_s if said_s is None else said_s))


def _unix_s(date: str) -> float | None:
    """Of an HTTP date in any of the three forms that RFC 9110 (5.6.7) has recipients take; None where it is none."""
    try:
        parsed = parsedate_tz(date)
        if parsed is None:
            return None
        # Its own arithmetic would make a day of May out of the 31st of April.
        return dt.datetime(*parsed[:6], tzinfo=dt.UTC).timestamp() - (parsed[9] or 0)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
