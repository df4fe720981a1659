"""How many adapters a box keeps in main memory (``--max-cpu-loras``).

vLLM reads an adapter that was evicted from there from disk again, inside the engine's step, and ends the engine if that
fails. It also keeps what was unloaded until it is evicted, the least recently used first, which may just as well be an
adapter that is only rarely asked for. So the pool holds all adapters, and has room for new versions beside the old.
"""

from __future__ import annotations

from typing import Final

AT_LEAST: Final = 64
"""Places cost nothing until an adapter is in them."""
LEAST_ROOM: Final = 8


def room_for_reloads(adapters: int, wanted: int | None) -> int:
    """Places beside those of ``adapters`` adapters: ``wanted``, or half of them and at least eight."""
    return max(LEAST_ROOM, -(-adapters // 2)) if wanted is None else wanted


def pool_size(adapters: int, *, max_loras: int, room: int, given: int | None) -> int:
    """``given``, or else enough for all adapters, ``room`` reloads and all slots. Counts of adapters."""
    return max(AT_LEAST, max_loras, adapters + room) if given is None else given
