"""Words for admin tokens that come, go and change: each is somebody's right to do something. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from gateway.policy.effect import as_written
from gateway.policy.effect_words import changed, short, until, validity
from gateway.policy.models import AdminToken

_OWN_WORDS = frozenset({"name", "sha256", "scope", "expires"})


def token_words(
    before: Sequence[AdminToken], after: Sequence[AdminToken], today: dt.date | None
) -> Iterator[tuple[str, str]]:
    """A token's name and what changes about it. One that is called otherwise now is known by its digest."""
    by_name, by_digest = {token.name: token for token in before}, {token.sha256: token for token in before}
    names = {token.name for token in after}
    told: set[str] = set()
    for token in after:
        was = by_name.get(token.name)
        if was is None and (same := by_digest.get(token.sha256)) is not None and same.name not in names:
            was = same
            yield token.name, f"was called {was.name} before"
        if was is None:
            may = "may read and write" if token.scope == "write" else "may read"
            yield token.name, ", ".join(("new", may, *until(token.expires, today)))
        else:
            told.add(was.name)
            for words in _changed(was, token, today):
                yield token.name, words
    for token in before:
        if token.name not in told:
            may = "read or write" if token.scope == "write" else "read"
            yield token.name, f"is removed, and may no longer {may}"


def _changed(old: AdminToken, new: AdminToken, today: dt.date | None) -> Iterator[str]:
    if old.scope != new.scope:
        yield "may now write (before: read only)" if new.scope == "write" else "may now only read (before: write too)"
    if old.expires != new.expires:
        yield validity(old.expires, new.expires, today)
    if old.sha256 != new.sha256:
        yield f"is another token, {short(new.sha256)} (before: {short(old.sha256)})"
    was, now = (as_written(token, but=_OWN_WORDS) for token in (old, new))
    for key in dict.fromkeys((*was, *now)):
        if was.get(key) != now.get(key):
            yield changed(key, was.get(key), now.get(key))
