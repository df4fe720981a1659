"""Which adapters a box has in its LoRA slots, as far as can be told from what it was sent: pure.

vLLM says it nowhere (its `lora_requests_info` names what runs, not what is resident), but its rule is simple: an
adapter that is asked for takes the slot of the one that was asked for longest ago. Other gateways' requests are not
seen here.
"""

from __future__ import annotations

from collections.abc import Iterable


class SlotModel:
    """Least recently used slots. ``swaps``: how often an adapter had to be brought into one."""

    __slots__ = ("_held", "slots", "swaps")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.swaps = 0
        self._held: dict[str, None] = {}

    def __contains__(self, adapter: str) -> bool:
        return adapter in self._held

    @property
    def held(self) -> tuple[str, ...]:
        """The adapters in slots, the one that was used longest ago first."""
        return tuple(self._held)

    def use(self, adapter: str) -> bool:
        """A request for ``adapter`` was sent; whether that swaps another one out, or fills an empty slot."""
        held = self._held
        if adapter in held:
            if next(reversed(held)) != adapter:
                del held[adapter]
                held[adapter] = None
            return False
        while len(held) >= self.slots:
            del held[next(iter(held))]
        held[adapter] = None
        self.swaps += 1
        return True

    def follow(self, held: Iterable[str]) -> None:
        """These are the adapters in slots, the one that was used longest ago first: another process has seen more."""
        self._held = dict.fromkeys(held)

    def clear(self) -> None:
        """Behind the address stands another server, or the same one started anew."""
        self._held.clear()
