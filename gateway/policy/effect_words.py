"""Words for what changes in effect: each says what is now and what was before."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.policy.effect import StepEffect

NAMED = 3
"""How many names a line gives before it counts the rest."""

LONGEST_TEXT = 60
"""Of a text that is shown; the lines below have all of it."""

KeyEntry = tuple[str | None, dt.date | None]


def named(names: Sequence[str]) -> str:
    """``acme, globex, initech and 37 more``"""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def listed(noun: str, names: Sequence[str] | None, plural: str, count: int | None = None) -> str:
    """``adapter acme_v3``, ``adapters acme_v3, acme_v4``, or only how many where ``names`` is None: ``2 keys``."""
    if names is None:
        return f"{count} {noun if count == 1 else plural}"
    if not names:
        return f"no {noun}"
    return f"{noun if len(names) == 1 else plural} {named(sorted(names))}"


def shown(value: Any, none: str = "not set") -> str:
    """A value as people write it."""
    if value is None:
        return none
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    text = (", ".join(map(shown, value)) or "nothing") if isinstance(value, list) else " ".join(str(value).split())
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def changed(key: str, old: Any, new: Any, none: str = "not set") -> str:
    """General words."""
    now, before = shown(new, none), shown(old, none)
    return f"{key} is {now} (before: {before})" if now != before else f"{key} is another text: {now}"


def keys(old: Mapping[str, KeyEntry], new: Mapping[str, KeyEntry], today: dt.date | None = None) -> Iterator[str]:
    """API keys that come, go and change, by digest."""
    revoked = [_key(digest, old[digest]) for digest in old if digest not in new]
    if revoked:
        yield f"{_count(revoked)} revoked ({', '.join(revoked)})"
    added = [
        ", ".join((_key(digest, new[digest]), *until(new[digest][1], today))) for digest in new if digest not in old
    ]
    if added:
        yield f"{_count(added)} added ({', '.join(added)})"
    for digest in old.keys() & new.keys():
        (old_name, old_expires), (name, expires) = old[digest], new[digest]
        if old_expires != expires:
            yield f"key {_key(digest, old[digest])} {validity(old_expires, expires, today)}"
        if old_name != name:
            yield f"key {_key(digest, old[digest])} is called {name or 'nothing'} now"


def _count(found: Sequence[str]) -> str:
    return "one key is" if len(found) == 1 else f"{len(found)} keys are"


def _key(digest: str, entry: KeyEntry) -> str:
    return entry[0] or short(digest)


def short(digest: str) -> str:
    """As much of it as tells it apart: ``sha256:1234abcd…``"""
    return f"{digest[:15]}…"


def until(expires: dt.date | None, today: dt.date | None) -> Iterator[str]:
    """How long something that is new is valid, where that has an end."""
    if expires is not None:
        yield f"until {expires}" + (", which is over" if _is_over(expires, today) else "")


def validity(old: dt.date | None, new: dt.date | None, today: dt.date | None) -> str:
    """How long something is valid now."""
    over = ", which is over" if _is_over(new, today) else ""
    return f"{_validity(new)}{over} (before: {_validity(old)})"


def _validity(expires: dt.date | None) -> str:
    return "does not expire" if expires is None else f"is valid until {expires}"


def _is_over(expires: dt.date | None, today: dt.date | None) -> bool:
    return expires is not None and today is not None and expires < today


def adapters(old: frozenset[str], new: frozenset[str]) -> Iterator[str]:
    """Adapters that come and go."""
    if gone := sorted(old - new):
        yield f"{listed('adapter', gone, 'adapters')} {'is' if len(gone) == 1 else 'are'} removed"
    if come := sorted(new - old):
        yield f"{listed('adapter', come, 'adapters')} {'is' if len(come) == 1 else 'are'} added"


def aliases(old: Mapping[str, Mapping[str, int]], new: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Aliases that come, go and lead elsewhere."""
    for alias in sorted(old.keys() | new.keys()):
        was, now = old.get(alias), new.get(alias)
        if was == now:
            continue
        if now is None:
            yield f"alias {alias} is removed"
        elif was is None:
            yield f"alias {alias} is added: {_split(now)}"
        else:
            yield f"alias {alias} leads to {_split(now)} (before: {_split(was)})"


def _split(weights: Mapping[str, int]) -> str:
    if len(weights) == 1:
        return next(iter(weights))
    total = sum(weights.values())
    return ", ".join(f"{name} {100 * weight / total:g} %" for name, weight in sorted(weights.items()))


def steps(old: tuple[StepEffect, ...], new: tuple[StepEffect, ...]) -> Iterator[str]:
    """The fallback: its order, or, where that stays, what is another in one step."""
    before, now = _order(old), _order(new)
    if before != now:
        yield f"fallback is {now} (before: {before})"
        return
    for number, (was, is_now) in enumerate(zip(old, new, strict=True), 1):
        for key in dict.fromkeys((*was.details, *is_now.details)):
            if was.details.get(key) != is_now.details.get(key):
                where = f"fallback step {number} ({_target(is_now)})"
                yield f"{where}: {changed(key, was.details.get(key), is_now.details.get(key))}"


def _order(found: tuple[StepEffect, ...]) -> str:
    return ", then ".join(_target(step) for step in found) or "nothing"


def _target(step: StepEffect) -> str:
    return f"provider {step.provider}" if step.provider is not None else "the base" if step.kind == "base" else "a text"
