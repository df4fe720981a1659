"""What is known of one way to fall back: when it was tried last, how that went, and when it last went well."""

from __future__ import annotations

from typing import Literal

import msgspec

By = Literal["schedule", "command", "traffic"]
"""Who tried it: the drills that come by themselves, somebody's command, or a customer's own request."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last try. Times are milliseconds of the store's clock; ``good_ms`` is 0 where it never went well.

    ``first_content_ms``: None where it was not measured. ``failures``: how many in a row; 0 after a good one.
    """

    key: str
    at_ms: int
    by: By
    error: str = ""
    model: str = ""
    first_content_ms: int | None = None
    good_ms: int = 0
    failures: int = 0

    @property
    def ok(self) -> bool:
        """Whether the last try went well."""
        return not self.error


def merged(one: Proof, other: Proof) -> Proof:
    """What two gateways know together: the later try, and the last good one of both."""
    later = max(one, other, key=_age)
    good_ms = max(one.good_ms, other.good_ms)
    return later if later.good_ms == good_ms else msgspec.structs.replace(later, good_ms=good_ms)


def _age(proof: Proof) -> tuple[object, ...]:
    # Of the same moment either will do, as long as all gateways take the same.
    return proof.at_ms, proof.error, proof.model, proof.by, proof.failures, proof.first_content_ms or 0


def followed_by(
    before: Proof | None,
    *,
    key: str,
    at_ms: int,
    by: By,
    error: str = "",
    model: str = "",
    first_content_ms: int | None = None,
) -> Proof:
    """What is known after one more try."""
    good_ms = 0 if before is None else before.good_ms
    failures = 0 if before is None else before.failures
    return Proof(
        key=key,
        at_ms=at_ms,
        by=by,
        error=error,
        model=model,
        first_content_ms=first_content_ms,
        good_ms=good_ms if error else at_ms,
        failures=failures + 1 if error else 0,
    )
