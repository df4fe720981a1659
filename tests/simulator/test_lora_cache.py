"""The caches of adapters are LRU, and what leaves the pool leaves its slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.simulator.lora_cache import LoraCache, Source


def test_the_least_recently_used_one_loses_its_slot() -> None:
    cache = LoraCache(max_loras=2, max_cpu_loras=8)
    assert [cache.use(adapter) for adapter in "aba"] == [Source.DISK, Source.DISK, Source.SLOT]
    assert cache.use("c") is Source.DISK
    assert cache.resident == ("a", "c")
    assert cache.use("b") is Source.POOL
    assert cache.resident == ("c", "b")
    assert (cache.swaps, cache.disk_loads, cache.evictions) == (4, 3, 2)


def test_what_leaves_the_pool_leaves_its_slot() -> None:
    cache = LoraCache(max_loras=2, max_cpu_loras=2)
    for adapter in "abc":
        cache.use(adapter)
    assert cache.resident == cache.pooled == ("b", "c")
    assert cache.use("a") is Source.DISK


@given(st.integers(1, 4), st.integers(0, 4), st.lists(st.sampled_from("abcdefgh")))
def test_the_caches_hold_the_latest_ones(slots: int, more: int, used: list[str]) -> None:
    cache = LoraCache(max_loras=slots, max_cpu_loras=slots + more)
    for adapter in used:
        cache.use(adapter)
    latest = tuple(reversed(dict.fromkeys(reversed(used))))
    assert cache.resident == latest[-slots:]
    assert cache.pooled == latest[-slots - more :]


@pytest.mark.parametrize("sizes", [(0, 1), (2, 1)])
def test_a_pool_that_is_smaller_than_the_slots_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="max_cpu_loras"):
        LoraCache(max_loras=sizes[0], max_cpu_loras=sizes[1])
