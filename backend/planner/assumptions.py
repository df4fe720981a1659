"""What a plan takes for granted, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backend.planner.bill import HOURS_A_MONTH, Prices
from backend.planner.scenario import Scenario


def assumptions(scenario: Scenario, prices: Prices) -> Iterator[str]:
    """One sentence each."""
    costs = scenario.knobs.costs()
    given = "as given" if scenario.knobs.given else "worked out from one report and a data sheet, not measured"
    yield (
        f"An engine's step takes {costs.step_s * 1000:g} ms, {costs.per_sequence_s * 1000:g} ms more a sequence that "
        f"decodes, {costs.per_adapter_s * 1000:g} ms an adapter in the batch, 1 s for {costs.prefill_tokens_per_s:g} "
        f"prompt tokens; an adapter takes {costs.swap_s * 1000:g} ms from main memory into a slot and "
        f"{costs.disk_load_s * 1000:g} ms from disk: {given} (backend/simulator/costs.py)."
    )
    yield (
        "Boxes schedule as vLLM 0.32 does, without prefix caching. Adapters are loaded before the traffic begins, as "
        "many as the pool in main memory holds, which is sized as `failsoft backend` sizes it."
    )
    yield (
        f"Hosted providers answer after {scenario.provider.ttft_s:g} s, with {scenario.provider.itl_s * 1000:g} ms a "
        "token, and never fail; what they cost is by their prices, as if the traffic went on day and night."
    )
    yield (
        f"A box costs {prices.gpu_usd_per_hour:g} USD an hour, {HOURS_A_MONTH:g} hours a month, whether it has "
        "anything to do or not."
    )
    yield (
        "One gateway process decides, by its own code; its CPU and the network take no time. The first "
        f"{scenario.warm_up_s:g} s, in which it learns the rates, are not counted."
    )
    if scenario.dies_at_s is not None:
        yield (
            "A box that dies does not come back. What it had begun to answer goes on elsewhere as the gateway has it; "
            "as boxes tell tokens in pieces here, more of it is written anew there than would be."
        )
