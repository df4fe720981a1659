"""Where an engine's adapters are: GPU slots over a CPU pool over the disk, both of them LRU."""

from __future__ import annotations

from enum import Enum, auto


class Source(Enum):
    """Where an adapter had to be taken from when a step wanted it."""

    SLOT = auto()
    """It was in a GPU slot."""
    POOL = auto()
    """It was in the CPU pool, and was copied into a slot: a swap."""
    DISK = auto()
    """It was read from disk into the pool, then copied."""


class LoraCache:
    """The two LRU caches of vLLM's ``LRUCacheLoRAModelManager`` (``vllm/lora/model_manager.py``).

    A step touches its adapters in both caches. What leaves the pool leaves its slot as well; what leaves a slot stays
    in the pool. To unload an adapter only forgets its name: its weights stay until they are evicted, as with vLLM.
    """

    __slots__ = ("_pool", "_slots", "disk_loads", "evictions", "max_cpu_loras", "max_loras", "swaps")

    def __init__(self, *, max_loras: int, max_cpu_loras: int) -> None:
        if not 1 <= max_loras <= max_cpu_loras:
            raise ValueError(f"max_cpu_loras ({max_cpu_loras}) has to be at least max_loras ({max_loras}), and that 1")
        self.max_loras = max_loras
        self.max_cpu_loras = max_cpu_loras
        self.swaps = 0
        """Copies into a slot, those after a read from disk included."""
        self.disk_loads = 0
        self.evictions = 0
        """Adapters that lost their slot to another one."""
        # Dictionaries keep their order: the least recently used one is first.
        self._slots: dict[str, None] = {}
        self._pool: dict[str, None] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """The adapters in GPU slots, least recently used first."""
        return tuple(self._slots)

    @property
    def pooled(self) -> tuple[str, ...]:
        """The adapters in the CPU pool, least recently used first; those in a slot are among them."""
        return tuple(self._pool)

    def use(self, adapter: str) -> Source:
        """Bring ``adapter`` into a slot, as a step that runs it does."""
        slots, pool = self._slots, self._pool
        source = Source.SLOT
        if adapter in pool:
            del pool[adapter]
        else:
            source = Source.DISK
            self.disk_loads += 1
            if len(pool) >= self.max_cpu_loras:
                oldest = next(iter(pool))
                del pool[oldest]
                if slots.pop(oldest, self) is None:
                    self.evictions += 1
        pool[adapter] = None
        if adapter in slots:
            del slots[adapter]
        else:
            if source is Source.SLOT:
                source = Source.POOL
            self.swaps += 1
            if len(slots) >= self.max_loras:
                del slots[next(iter(slots))]
                self.evictions += 1
        slots[adapter] = None
        return source
