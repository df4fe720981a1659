"""What hosted models cost, from LiteLLM's map or as it is written, and what validate says where nobody knows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.policy.compile import compile_policy
from gateway.policy.compiled import Price, ProviderStep
from gateway.policy.prices import price_of
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder

WITH_PRICE = """\
fleets: {main: {base_model: base, boxes: {a: {url: "http://10.0.0.11:8000"}}}}
providers:
  hosted:
    model: %s
    price: {input_per_million: 0.15, output_per_million: 0.6}
    max_concurrency: 7
"""


def step(folder: Folder) -> ProviderStep:
    found = compile_policy(read_folder(folder.path), version=1, store_id="s", created_s=0, env={})
    (only,) = found.customers["acme"].steps
    assert isinstance(only, ProviderStep)
    return only


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"])
def test_the_map_knows_the_large_providers_models(model: str) -> None:
    price = price_of(model)
    assert price is not None
    assert 0 < price.cached < price.prompt < price.completion < 1e-3


def test_the_map_is_read_without_importing_litellm() -> None:
    code = "import sys; from gateway.policy.prices import price_of; assert price_of('openai/gpt-4o-mini'); "
    code += "assert 'litellm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_answer_costs_its_tokens_and_cached_ones_less() -> None:
    price = Price(prompt=1e-6, completion=4e-6, cached=1e-7)
    assert price.nano_usd(1000, 100) == 1_400_000
    assert price.nano_usd(1000, 100, cached_tokens=600) == 400_000 + 60_000 + 400_000
    assert price.nano_usd(10, 0, cached_tokens=600) == 1_000


def test_a_written_price_is_the_providers_own_models_and_the_maps_comes_first_for_another(folder: Folder) -> None:
    folder.write("fleet.yaml", WITH_PRICE % "openai/gpt-4o-mini")
    written = pytest.approx(0.15e-6), pytest.approx(0.6e-6)
    found = step(folder)
    assert found.price is not None
    assert (found.price.prompt, found.price.completion) == written
    assert found.provider.max_concurrency == 7
    folder.customer("acme", "fallback: [{provider: hosted, model: openai/gpt-4o}]\n")
    assert step(folder).price == price_of("openai/gpt-4o")
    folder.customer("acme", "fallback: [{provider: hosted, model: openai/nobody-knows}]\n")
    price = step(folder).price
    assert price is not None
    assert (price.prompt, price.completion) == written


def test_validate_warns_of_a_cap_that_could_not_be_kept(folder: Folder) -> None:
    folder.write("fleet.yaml", (WITH_PRICE % "openai/nobody-knows").replace("    price:", "    # price:"))
    folder.customer("acme", "hosted: {usd_per_day: 25}\n")
    (warning,) = [one for one in read_folder(folder.path).warnings if "costs" in str(one)]
    assert "what openai/nobody-knows costs is not known: it is not asked under a cap" in str(warning)
    compiled = compile_policy(read_folder(folder.path), version=1, store_id="s", created_s=0, env={})
    assert any(
        line.startswith("hosted.usd_per_day: a provider of acme has no known price") for line in compiled.warnings
    )
    folder.write("fleet.yaml", WITH_PRICE % "openai/nobody-knows")
    assert not [one for one in read_folder(folder.path).warnings if "costs" in str(one)]
