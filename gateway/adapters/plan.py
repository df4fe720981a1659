"""What is to be done on one box, so that it has what policies name. Pure: time is handed in.

A box is looked at, and this says the steps from what it has to what it should have, in order, and what is left as it is
and why. Whoever carries it out takes one step, and asks again with what that came to. The rules:

* An adapter's folder never changes under a box (vLLM reads an evicted one again, and ends if it cannot): a name that is
  there from another path is not touched, unless the caller has said that it may be replaced.
* The old version stays until the new one has answered: an adapter that policies no longer name is unloaded when all
  that its customer has now is there and answers, its grace is over, and nobody here is asking it.
* What no policy is known to have named is somebody else's.
* A box never gets more adapters than its pool in main memory holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.adapters.wanted import Former, Wanted


@dataclass(frozen=True, slots=True)
class Load:
    """Have the box load it."""

    adapter: str
    path: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask it for one token. ``fresh``: it was loaded only now, and is unloaded again if it does not answer."""

    adapter: str
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Unload:
    """Have the box forget its name."""

    adapter: str
    why: str


Action = Load | Verify | Unload


class Kind(StrEnum):
    """Why something is not done, or not yet."""

    CONFLICT = "conflict"
    FULL = "full"
    NO_PATH = "no_path"
    FAILED = "failed"
    SUCCESSOR = "successor"
    GRACE = "grace"
    IN_FLIGHT = "in_flight"
    NOT_OURS = "not_ours"


WRONG = frozenset({Kind.CONFLICT, Kind.FULL, Kind.NO_PATH, Kind.FAILED})
"""Those that a person has to do something about: policies name what the box will not have by itself."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is left as it is. ``until_s``: Unix time, where it is only not yet."""

    adapter: str
    kind: Kind
    text: str
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A box: what it lists, by name with the path it came from (None: it does not say), and what of that is asked now.

    ``capacity``: adapters that its pool in main memory holds. ``unproven``: loaded by us, without an answer yet;
    ``unasked``: there before, and to be asked whether they answer.
    """

    listed: Mapping[str, str | None]
    capacity: int
    in_flight: Collection[str] = frozenset()
    unproven: Collection[str] = frozenset()
    unasked: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller wants. ``replace``: a name from another path is unloaded and loaded again; requests for it go
    elsewhere meanwhile. ``prune``: also unload what no policy is known to have named. ``unload`` False: nothing is
    unloaded, as it is not known whether others act too. ``grace_s``: see :class:`~gateway.policy.compiled.SyncSpec`.
    """

    grace_s: float = 60.0
    replace: bool = False
    prune: bool = False
    unload: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """``actions`` in their order; ``held``: what is left, and why; ``kept``: adapters that are as they should be."""

    actions: tuple[Action, ...] = ()
    held: tuple[Held, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Held, ...]:
        """What a person has to look at."""
        return tuple(one for one in self.held if one.kind in WRONG)

    @property
    def waiting(self) -> tuple[Held, ...]:
        """What will be done later by itself, where somebody goes on looking."""
        return tuple(one for one in self.held if one.kind in (Kind.GRACE, Kind.IN_FLIGHT, Kind.SUCCESSOR))


@dataclass(slots=True)
class _Draft:
    loads: list[Action] = field(default_factory=list)
    unloads: list[Action] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    pending: dict[str, list[str]] = field(default_factory=dict)
    """By customer, which of its adapters are not there, or do not answer yet."""


def plan(
    wanted: Mapping[str, Wanted],
    seen: Seen,
    former: Mapping[str, Former],
    failed: Mapping[str, Held],
    terms: Terms,
    now_s: float,
) -> Plan:
    """The way from ``seen`` to ``wanted`` at Unix time ``now_s``.

    ``former``: what earlier versions named. ``failed``: what is not tried again yet on this box.
    """
    draft = _Draft()
    registered = len(seen.listed)
    for one in wanted.values():
        registered = _bring(one, seen, failed, terms, registered, draft)
    for name in sorted(seen.listed.keys() - wanted.keys()):
        _dismiss(name, seen, former, terms, now_s, draft)
    # What goes makes room for what comes.
    return Plan((*draft.unloads, *draft.loads), tuple(draft.held), tuple(draft.kept))


def _bring(one: Wanted, seen: Seen, failed: Mapping[str, Held], terms: Terms, registered: int, draft: _Draft) -> int:
    name = one.name
    there = name in seen.listed
    if there and not _same_path(seen.listed[name], one.path):
        return _conflict(one, seen, terms, registered, draft)
    if there:
        if name in seen.unproven or name in seen.unasked:
            draft.loads.append(Verify(name, fresh=name in seen.unproven))
            _pend(one, draft)
        elif (why := failed.get(name)) is not None:
            draft.held.append(why)
            _pend(one, draft)
        else:
            draft.kept.append(name)
        return registered
    _pend(one, draft)
    if one.path is None:
        draft.held.append(
            Held(name, Kind.NO_PATH, "is on no box yet, and neither adapter_root nor adapter_paths say where it lies")
        )
    elif (why := failed.get(name)) is not None:
        draft.held.append(why)
    elif registered >= seen.capacity:
        draft.held.append(Held(name, Kind.FULL, _full(len(seen.listed), seen.capacity)))
    else:
        draft.loads += [Load(name, one.path), Verify(name)]
        return registered + 1
    return registered


def _conflict(one: Wanted, seen: Seen, terms: Terms, registered: int, draft: _Draft) -> int:
    name, root = one.name, seen.listed[one.name]
    _pend(one, draft)
    if one.path is None or not terms.replace or not terms.unload:
        text = (
            f"is loaded from {root}, and policies say {one.path}: a new version needs a new name "
            "(or --replace, during which the box lacks it)"
        )
        draft.held.append(Held(name, Kind.CONFLICT, text))
    elif name in seen.in_flight:
        draft.held.append(Held(name, Kind.IN_FLIGHT, "has requests in flight"))
    else:
        draft.loads += [Unload(name, f"to be loaded from {one.path}"), Load(name, one.path), Verify(name)]
    return registered


def _dismiss(name: str, seen: Seen, former: Mapping[str, Former], terms: Terms, now_s: float, draft: _Draft) -> None:
    was = former.get(name)
    if was is None and not terms.prune:
        draft.held.append(Held(name, Kind.NOT_OURS, "is not ours: no policy is known to have named it"))
        return
    if was is not None and (successors := draft.pending.get(was.customer)):
        text = f"stays until {', '.join(successors)} answer{'s' if len(successors) == 1 else ''}, then to be unloaded"
        draft.held.append(Held(name, Kind.SUCCESSOR, text))
        return
    if was is None and draft.pending:
        # Whose it is nobody knows, so that it may be any that is to be replaced.
        draft.held.append(Held(name, Kind.SUCCESSOR, "stays until all that policies name answers, then to be unloaded"))
        return
    if was is not None and now_s < (until_s := was.since_s + terms.grace_s):
        draft.held.append(Held(name, Kind.GRACE, "to be unloaded when its grace is over", until_s))
        return
    if not terms.unload:
        draft.held.append(Held(name, Kind.GRACE, "to be unloaded when the store says that nobody else acts"))
        return
    if name in seen.in_flight:
        draft.held.append(Held(name, Kind.IN_FLIGHT, "to be unloaded when its requests have ended"))
        return
    draft.unloads.append(Unload(name, "no policy names it" + ("" if was is None else " any more")))


def _pend(one: Wanted, draft: _Draft) -> None:
    draft.pending.setdefault(one.customer, []).append(one.name)


def _same_path(root: str | None, path: str | None) -> bool:
    return root is None or path is None or root.rstrip("/") == path.rstrip("/")


def _full(listed: int, capacity: int) -> str:
    return (
        f"does not fit: the box lists {listed} adapters and max_cpu_loras is {capacity}. One more would push another "
        "out of its main memory, to be read from disk in the middle of serving, and vLLM ends where that fails: start "
        "it with a larger max_cpu_loras (and write it in fleet.yaml), or name fewer"
    )
