"""What an engine's step costs, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from backend.simulator.lora_cache import Source


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of one step, as a sum of what it does.

    The defaults are a Llama 3.1 8B in bf16 on one A100 80 GB with rank-16 adapters. No GPU was measured: they are
    fitted to the one production report that this project starts from (256 tokens in 410 ms when alone, about 3,100
    tokens a second at saturation, 30 to 50 ms a cold swap), or worked out from the card's data sheet. The report's
    fourth figure, a p50 of 470 ms under 5 requests a second a box, is not met: at 41 % of that saturation anything
    linear is about twice as slow as when alone.

    - ``step_s``: of any step; reading the weights, launching kernels. 256 tokens in 410 ms are 1.6 ms a token. As
      reading 16 GB at 2 TB/s takes 8 ms, that box decodes several tokens in one forward pass (speculation); a step
      here is one token's share of a pass.
    - ``per_sequence_s``: of one decoding sequence (its KV cache, attention, sampling, its share of the compute). It
      bounds the throughput, so it follows from those 3,100 tokens a second, with prompts of 200 tokens.
    - ``per_adapter_s``: of one more adapter in the batch: 42 MB read at 2 TB/s. Punica (arXiv:2310.18547) and S-LoRA
      (arXiv:2311.03285) find as well that a batched LoRA kernel costs little more with more adapters.
    - ``prefill_tokens_per_s``: prompt tokens. An 8B needs 2 × 8e9 operations a token, so 10,000 a second are half of
      the card's 312 TFLOP/s.
    - ``swap_s``: to copy an adapter from the CPU pool into a GPU slot: the middle of the report's 30 to 50 ms.
    - ``disk_load_s``: to read one from disk into the pool first. The report says "far worse" than a swap, without a
      figure; ten times that is assumed.
    """

    step_s: float = 0.0013
    per_sequence_s: float = 0.00023
    per_adapter_s: float = 0.00002
    prefill_tokens_per_s: float = 10_000.0
    swap_s: float = 0.040
    disk_load_s: float = 0.400

    def __post_init__(self) -> None:
        """Raises ValueError where a step could take no time at all, or less: time would stand still."""
        others = (self.per_sequence_s, self.per_adapter_s, self.swap_s, self.disk_load_s)
        if self.step_s <= 0 or self.prefill_tokens_per_s <= 0 or min(others) < 0:
            raise ValueError("a step has to take some time, a prefill rate has to be above zero, no cost below it")

    def forward_s(self, *, decoding: int, adapters: int, prefill_tokens: int = 0) -> float:
        """Seconds of one forward pass: ``decoding`` sequences, ``adapters`` distinct ones, so many prompt tokens."""
        return (
            self.step_s
            + decoding * self.per_sequence_s
            + adapters * self.per_adapter_s
            + prefill_tokens / self.prefill_tokens_per_s
        )

    def load_s(self, source: Source) -> float:
        """Seconds until an adapter from ``source`` is in a GPU slot."""
        if source is Source.SLOT:
            return 0.0
        return self.swap_s + (self.disk_load_s if source is Source.DISK else 0.0)
