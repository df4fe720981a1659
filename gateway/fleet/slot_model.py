"""Which adapters a box has in its LoRA slots, as far as can be told from what it was sent: pure.

vLLM says it nowhere (its `lora_requests_info` names what runs, not what is resident), but its rule is simple: an
adapter that is asked for takes the slot of the one that was used longest ago, and whoever runs is in use. Other
gateways' requests are not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


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
    def full(self) -> bool:
        """Whether another adapter would take the slot of one of them."""
        return len(self._held) >= self.slots

    @property
    def held(self) -> tuple[str, ...]:
        """The adapters in slots, the one that was used longest ago first."""
        return tuple(self._held)

    def use(self, adapter: str, running: Callable[[str], int]) -> bool:
        """A request for ``adapter`` was sent; whether that swaps another one out, or fills an empty slot.

        ``running`` says how many requests for an adapter are in flight: who has any keeps its slot."""
        held = self._held
        if adapter in held:
            if next(reversed(held)) != adapter:
                del held[adapter]
                held[adapter] = None
            return False
        while len(held) >= self.slots:
            del held[next((name for name in held if not running(name)), next(iter(held)))]
        held[adapter] = None
        self.swaps += 1
        return True

    def follow(self, held: Iterable[str]) -> None:
        """These are the adapters in slots, the one that was used longest ago first: another process has seen more."""
        self._held = dict.fromkeys(held)

    def clear(self) -> None:
        """Behind the address stands another server, or the same one started anew."""
        self._held.clear()
