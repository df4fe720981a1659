"""Reads customers' files on all cores, for a command that has thousands of them before it, and each text only once.

Only for a process that has one thread and no event loop yet, as it is forked. A file about which anything has to be
said is left to whoever reads it next.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gateway.policy.alone import Alone
from gateway.policy.compile import Common
from gateway.policy.models import CustomerFile
from gateway.policy.plain_customer import Own, PlainCustomer, plain_from_values, written
from gateway.policy.policy_set import dumped
from gateway.policy.quick_source import QuickReader
from gateway.policy.read_before import Entry, ReadBefore
from gateway.policy.rules_apart import MOST_RULES, RULES, without_rules
from gateway.policy.source import SourceError, decode, read_bounded

WORTH_IT = 2_000
"""Files. Below, the processes take longer to start than they save."""
WORTH_KEEPING = 50
"""One new file in so many. What was made of fewer is made again sooner than the cache of all is written anew."""
MOST_PROCESSES = 8
CHUNKS = 4
"""For each process, so that they end at about the same time."""


class Ahead(NamedTuple):
    """A valid file: the SHA-256 of its bytes, its ``text``, and the ``document`` that is kept of the customer.

    ``in_order``: by itself it needs no further look (:class:`~gateway.policy.alone.Alone`).
    """

    digest: bytes
    text: str
    document: bytes
    in_order: bool

    @property
    def customer(self) -> CustomerFile:
        """Read each time."""
        return CustomerFile.model_validate_json(self.document)


def read_ahead(
    paths: Sequence[Path],
    alone: Alone,
    *,
    meanwhile: Callable[[], object] = lambda: None,
    keep: Callable[[Callable[[], None]], object] = lambda write: write(),
) -> Mapping[Path, Ahead]:
    """Those of ``paths``, of one folder of policies, that are valid; none where it is not worth it.

    ``meanwhile``: done while other processes read, where there are any. ``keep`` is given what writes to the cache.
    """
    if len(paths) < WORTH_IT:
        return {}
    cache = ReadBefore(paths[0].parent.parent, os.environ, alone.digest)
    before = cache.read()
    found: dict[Path, Ahead] = {}
    entries: dict[bytes, Entry] = {}
    new: list[Path] = []
    for path in paths:
        if before and (known := _known(path, before)) is not None:
            found[path] = known
            entries[known.digest] = before[known.digest]
        else:
            new.append(path)
    if not new:
        return found
    alone.get_ready()
    ahead = _on_all_cores(new, alone, meanwhile)
    found |= ahead
    if len(ahead) * WORTH_KEEPING >= len(paths):

        def write() -> None:
            cache.write(entries | {one.digest: Entry(one.document, one.in_order) for one in ahead.values()})

        keep(write)
    return found


def _known(path: Path, before: Mapping[bytes, Entry]) -> Ahead | None:
    try:
        raw = read_bounded(path)
        digest = _sha256(raw)
        entry = before.get(digest)
        return None if entry is None else Ahead(digest, decode(raw), *entry)
    except (OSError, SourceError):
        return None


def _sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _on_all_cores(paths: Sequence[Path], alone: Alone, meanwhile: Callable[[], object]) -> Mapping[Path, Ahead]:
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    if len(paths) < WORTH_IT or processes < 2 or sys.platform != "linux":
        return {path: one for path, one in zip(paths, _Reader(alone).read(paths), strict=True) if one is not None}
    size = -(-len(paths) // (processes * CHUNKS))
    chunks = [paths[start : start + size] for start in range(0, len(paths), size)]
    forking = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(processes, forking, initializer=_begin, initargs=(alone,)) as pool:
            found = pool.map(_read, [[str(path) for path in chunk] for chunk in chunks])
            meanwhile()
            # While the others read on.
            return {
                path: Ahead(*one)
                for chunk, ones in zip(chunks, found, strict=True)
                for path, one in zip(chunk, ones, strict=True)
                if one is not None
            }
    except (BrokenProcessPool, OSError):  # no memory for it, perhaps: what is not read ahead is read in order
        return {}


@dataclass(frozen=True)
class _Rules:
    """Of customers who say the same in all of theirs.

    ``values``: as they were read, which so keep their place in memory; ``customer``: the first of those customers;
    ``common``: what they come to, None where anything is to be said of them.
    """

    values: tuple[Any, ...]
    customer: CustomerFile
    common: Common | None

    @cached_property
    def _document(self) -> bytes:
        return self.customer.model_dump_json(exclude_unset=True, include=set(RULES)).encode()

    def document(self, own: Own) -> bytes:
        """That of a customer who has these rules, and of whom ``own`` is the rest: rules come first."""
        rest = written(own) if isinstance(own, PlainCustomer) else dumped(own)
        return rest if len(self._document) == 2 else self._document[:-1] + b"," + rest[1:]


class _Reader:
    """Reads files of one folder, one after the other."""

    def __init__(self, alone: Alone) -> None:
        self._alone = alone
        self._quick = QuickReader()
        self._rules: dict[tuple[int, ...], _Rules] = {}
        """By which values they are: the reader gives customers who say the same the very same value."""

    def read(self, paths: Iterable[Path]) -> list[Ahead | None]:
        """Of each path, unless anything has to be said about it."""
        return [self._one(path) for path in paths]

    def _one(self, path: Path) -> Ahead | None:
        try:
            raw = read_bounded(path)
            text = decode(raw)
            values = self._quick.read(text)
            if not isinstance(values, dict):
                return None
            shared = tuple(map(id, map(values.get, RULES)))
            known = self._rules.get(shared)
            if known is None:
                customer = CustomerFile.model_validate(values)
                if len(self._rules) > MOST_RULES:
                    self._rules.clear()
                common = self._alone.common(customer)
                self._rules[shared] = _Rules(tuple(map(values.get, RULES)), customer, common)
                return Ahead(_sha256(raw), text, dumped(customer), self._alone.in_order(customer, common))
            rest = without_rules(values)
            own = plain_from_values(rest) or CustomerFile.model_validate(rest)
            return Ahead(_sha256(raw), text, known.document(own), self._alone.in_order(own, known.common))
        except (OSError, SourceError, ValidationError):
            return None


_here: list[_Reader] = []
"""Of a process that was forked to read, its one reader."""


def _begin(alone: Alone) -> None:
    _here.append(_Reader(alone))


def _read(paths: Sequence[str]) -> list[tuple[bytes, str, bytes, bool] | None]:
    # Bare tuples are half the work to pass on.
    return [one and (*one,) for one in _here[-1].read(map(Path, paths))]
