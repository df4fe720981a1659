"""What a gateway still knows after a restart without its store."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreCorrupt
from gateway.policy.snapshot import MAX_STORES, Memory, Snapshot
from gateway.policy.versions import Head, StoredVersion


def stored(version: int, document: bytes = b'{"a": "\\n"}', store: str = "s") -> StoredVersion:
    return StoredVersion(
        Head(store, version, hashlib.sha256(document).hexdigest()), 1_700_000_000, "why", "ops", document
    )


def test_nothing_is_known_before_anything_was_written(tmp_path: Path) -> None:
    memory = Snapshot(tmp_path).read()
    assert memory == Memory()
    assert not memory.ever_filled(embedded=False)
    assert not memory.ever_filled(embedded=True)


@pytest.mark.parametrize(
    "memory",
    [
        Memory(),
        Memory({"s": 3}),
        Memory({"s": 4}).in_force(stored(4)),
        Memory({"t": 9, "s": 4}, embedded=frozenset({"t"})).in_force(stored(4)),
    ],
)
def test_what_was_written_is_read(tmp_path: Path, memory: Memory) -> None:
    Snapshot(tmp_path).write(Memory({"old": 1}))
    Snapshot(tmp_path).write(memory)
    assert Snapshot(tmp_path).read() == memory
    assert stat.S_IMODE(Snapshot(tmp_path).path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["policies.snapshot"]


@given(st.data())
def test_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    snapshot = Snapshot(tmp_path_factory.mktemp("state"))
    snapshot.write(Memory().in_force(stored(4)))
    raw = bytearray(snapshot.path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    snapshot.path.write_bytes(raw)
    with pytest.raises(StoreCorrupt):
        snapshot.read()


def test_a_damaged_snapshot_still_says_that_a_store_was_filled() -> None:
    assert Memory(damaged=True).ever_filled(embedded=False)


def test_the_highest_version_of_each_store_is_kept_for_the_latest_stores() -> None:
    memory = Memory()
    for number in range(MAX_STORES + 5):
        memory = memory.having_seen(Head(f"s{number}", 2, ""), embedded=False)
        memory = memory.having_seen(Head(f"s{number}", 1, ""), embedded=False)
    assert len(memory.seen) == MAX_STORES
    assert memory.seen[f"s{MAX_STORES + 4}"] == 2
    assert "s0" not in memory.seen
