"""How a client is told of its limits: OpenAI's headers, and the 429."""

from __future__ import annotations

import math

from gateway.accounts.account import Account, Kind
from gateway.dataplane.marks import Headers
from gateway.errors import RequestError

MOST_RETRY_S = 60
"""A window, after which all is fresh. What is longer, OpenAI's SDKs do not wait for (`_calculate_retry_timeout`)."""

_WORDS = {
    "requests": "Rate limit reached: {limit} requests a minute (limits.requests_per_minute). Ask again in {wait} s.",
    "tokens": "Rate limit reached: {limit} tokens a minute (limits.tokens_per_minute). Ask again in {wait} s.",
    "concurrency": "{limit} requests of yours are being answered, which is your limit (limits.concurrency). "
    "Ask again when one of them has ended.",
}


class Limited(RequestError):
    """A limit of the customer's is reached. It is the caller's to wait: another model would not make it fewer."""

    def __init__(self, kind: Kind, limit: int, wait_s: float) -> None:
        self.kind = kind
        self.retry_after_s = max(1, min(MOST_RETRY_S, math.ceil(wait_s)))
        super().__init__(
            429,
            _WORDS[kind].format(limit=limit, wait=self.retry_after_s),
            type="tokens" if kind == "tokens" else "requests",
            code="rate_limit_exceeded",
        )


def rate_headers(account: Account, now: float, over: Kind | None = None, wait_s: float = 0.0) -> Headers:
    """What is left of the limits a minute, as OpenAI says it; ``over``: the limit that turns this request away, which
    is asked to come again after ``wait_s``: no reset is before that."""
    headers: Headers = []
    for kind, allowance in (("requests", account.allowances[0]), ("tokens", account.allowances[1])):
        if allowance is not None:
            left = max(0, min(allowance.limit, max(0, allowance.left(now)) + allowance.left_elsewhere))
            if kind == over == "requests":
                left = 0  # the little that others keep for the first request that comes to them
            headers.append((b"x-ratelimit-limit-%b" % kind.encode(), b"%d" % allowance.limit))
            headers.append((b"x-ratelimit-remaining-%b" % kind.encode(), b"%d" % left))
            reset_s = max(allowance.resets_in(now), min(MOST_RETRY_S, wait_s) if kind == over else 0.0)
            headers.append((b"x-ratelimit-reset-%b" % kind.encode(), duration(reset_s).encode()))
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``120ms``, ``1s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    whole = math.ceil(seconds)
    return f"{whole}s" if whole < 60 else f"{whole // 60}m{whole % 60}s"
