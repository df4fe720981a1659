"""How whoever needs the store waits for it."""

from __future__ import annotations

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from gateway.errors import StoreError

RECONNECT_WAIT_MAX_S = 1.0


def patiently(longest_s: float | None = None) -> AsyncRetrying:
    """Try for ever, with jitter, so that a thousand gateways do not come back to their store at once.

    ``longest_s``: the longest wait between two tries, ``RECONNECT_WAIT_MAX_S`` when left out.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(StoreError),
        wait=wait_random_exponential(multiplier=0.05, max=RECONNECT_WAIT_MAX_S if longest_s is None else longest_s),
    )
