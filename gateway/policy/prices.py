"""What hosted models cost: from the price map that LiteLLM brings along, read without importing LiteLLM.

The import takes seconds and 170 MB; the map is one JSON file in the package.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from gateway.policy.compiled import Price
from gateway.policy.models import Price as WrittenPrice
from gateway.policy.models import Provider, ProviderStep

log = logging.getLogger(__name__)

MAP_FILE = "model_prices_and_context_window_backup.json"

PER_MILLION = 1e-6


def step_price(step: ProviderStep, provider: Provider) -> Price | None:
    """What ``step`` costs. A written price is that of the provider's own model; of another model that a step asks for,
    the map's comes first."""
    own = step.model is None or step.model == provider.model
    if own and provider.price is not None:
        return _written(provider.price)
    found = price_of(step.model or provider.model)
    return _written(provider.price) if found is None and provider.price is not None else found


def _written(price: WrittenPrice) -> Price:
    prompt, cached = price.input_per_million * PER_MILLION, price.cached_input_per_million
    return Price(prompt, price.output_per_million * PER_MILLION, prompt if cached is None else cached * PER_MILLION)


class _Entry(msgspec.Struct):
    """Of LiteLLM's map; USD a token."""

    litellm_provider: str | None = None
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cache_read_input_token_cost: float | None = None


def price_of(model: str) -> Price | None:
    """What ``model`` (in LiteLLM's naming: ``openai/gpt-4o-mini``) costs; None where the map does not say."""
    prices = price_map()
    if (price := prices.get(model)) is not None:
        return price
    provider, _, name = model.partition("/")
    # The map names most models of the large providers without them.
    return prices.get(f"{provider}|{name}")


def _map_file() -> Path | None:
    spec = importlib.util.find_spec("litellm")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(folder, MAP_FILE) for folder in folders), None)


def price_map_state() -> bytes:
    """Which map it is: another one after an upgrade, for those who remember what they made of it."""
    try:
        found = None if (file := _map_file()) is None else file.stat()
    except OSError:
        found = None
    return b"" if found is None else f"{found.st_size} {found.st_mtime_ns}".encode()


@cache
def price_map() -> Mapping[str, Price]:
    """All prices, by the map's own names and by ``provider|name``. Some ten milliseconds, once: not on a loop."""
    if (file := _map_file()) is None:
        return {}
    try:
        return _read(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        log.warning("LiteLLM's price map cannot be read: %s", error)
        return {}


def _read(data: bytes) -> Mapping[str, Price]:
    found: dict[str, Price] = {}
    for name, raw in msgspec.json.decode(data, type=dict[str, msgspec.Raw]).items():
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except msgspec.ValidationError:
            continue  # the sample entry, which has words in place of numbers
        prompt, completion = entry.input_cost_per_token, entry.output_cost_per_token
        if prompt is None or completion is None:
            continue
        cached = entry.cache_read_input_token_cost
        price = Price(prompt, completion, prompt if cached is None else cached)
        found[name] = price
        # As `bedrock_converse` and `vertex_ai-language-models` are asked for as `bedrock/…` and `vertex_ai/…`.
        provider = (entry.litellm_provider or "").removesuffix("_converse").partition("-")[0]
        found[f"{provider}|{name}"] = price
    return found
