"""Reads customers' files on all cores, for a command that has thousands of them before it, and each text only once.

Only for a process that has one thread and no event loop yet, as it is forked. A file about which anything has to be
said is left to whoever reads it next.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gateway.policy.models import CustomerFile
from gateway.policy.policy_set import dumped
from gateway.policy.quick_source import QuickReader
from gateway.policy.read_before import ReadBefore
from gateway.policy.source import SourceError, decode, read_bounded

WORTH_IT = 2_000
"""Files. Below, the processes take longer to start than they save."""
MOST_PROCESSES = 8
CHUNKS = 4
"""For each process, so that they end at about the same time."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A valid file: its ``text``, the ``document`` that is kept of the customer, and the ``customer``."""

    text: str
    document: bytes
    customer: CustomerFile


def read_ahead(paths: Sequence[Path]) -> Mapping[Path, Ahead]:
    """Those of ``paths``, of one folder of policies, that are in order; none where it is not worth it."""
    if len(paths) < WORTH_IT:
        return {}
    cache = ReadBefore(paths[0].parent.parent, os.environ)
    before = cache.read()
    found: dict[Path, Ahead] = {}
    entries: dict[bytes, bytes] = {}
    new: list[Path] = []
    for path in paths:
        if before and (known := _known(path, before)) is not None:
            digest, found[path] = known
            entries[digest] = found[path].document
        else:
            new.append(path)
    ahead = _on_all_cores(new)
    if ahead:
        found |= ahead
        entries |= {_sha256(one.text.encode()): one.document for one in ahead.values()}
        cache.write(entries)
    return found


def _known(path: Path, before: Mapping[bytes, bytes]) -> tuple[bytes, Ahead] | None:
    try:
        raw = read_bounded(path)
        digest = _sha256(raw)
        document = before.get(digest)
        return None if document is None else (digest, _ahead(decode(raw), document))
    except (OSError, SourceError):
        return None


def _sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _on_all_cores(paths: Sequence[Path]) -> Mapping[Path, Ahead]:
    reader = QuickReader()
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    if len(paths) < WORTH_IT or processes < 2 or sys.platform != "linux":
        return {path: _ahead(*one) for path in paths if (one := _one(path, reader)) is not None}
    size = -(-len(paths) // (processes * CHUNKS))
    chunks = [paths[start : start + size] for start in range(0, len(paths), size)]
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
            found = pool.map(_read, [[str(path) for path in chunk] for chunk in chunks])
            # While the others read on.
            return {
                path: _ahead(*one)
                for chunk, ones in zip(chunks, found, strict=True)
                for path, one in zip(chunk, ones, strict=True)
                if one is not None
            }
    except (BrokenProcessPool, OSError):  # no memory for it, perhaps: what is not read ahead is read in order
        return {}


def _ahead(text: str, document: bytes) -> Ahead:
    return Ahead(text, document, CustomerFile.model_validate_json(document))


def _read(paths: list[str]) -> list[tuple[str, bytes] | None]:
    reader = QuickReader()
    return [_one(Path(path), reader) for path in paths]


def _one(path: Path, reader: QuickReader) -> tuple[str, bytes] | None:
    """A valid file's text, and its document."""
    try:
        text = decode(read_bounded(path))
        values = reader.read(text)
        return None if values is None else (text, dumped(CustomerFile.model_validate(values)))
    except (OSError, SourceError, ValidationError):
        return None
