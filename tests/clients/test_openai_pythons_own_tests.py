"""openai-python's own tests of its resources, which its sources bring, with the gateway as their server."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.environments import OWN_TESTS, CannotBeMade, Environment
from tests.clients.town import SDK_ADAPTER, Town
from tests.support.eventually import eventually

KEY = "My API Key"
"""What its tests ask with."""
FILES = ("chat/test_completions.py", "test_completions.py", "test_embeddings.py", "test_models.py")
SERVED = "(create or (test_models and (retrieve or list)))"
"""The rest is about answers that are stored, and models that are deleted. Those of responses ask without a
model, or in the background: both are refused."""
STRICT = "(test_embeddings and strict)"
"""The SDK asks for base64 and, where it is strict, refuses that before it decodes it: its mock server gives lists."""
REFUSED = "all_params"
"""These ask for no tokens at all, and for usage in a stream of none: vLLM refuses that with 400."""
AT_LEAST = 60


async def known_as_in_its_tests(town: Town, sources: Path) -> None:
    """A customer with its key, whose adapter has aliases that are the models' names in its tests."""
    texts = [(sources / name).read_text() for name in FILES]
    models = {model for text in texts for model in re.findall(r'\bmodel="([^"]+)"', text) if model != "model"}
    models |= set(re.findall(r'models(?:\.\w+)*\.retrieve\(\s*"([^"]+)"', texts[-1]))
    policy: dict[str, Any] = {
        "customer": "sdk",
        "api_keys": ["sha256:" + hashlib.sha256(KEY.encode()).hexdigest()],
        "adapters": [SDK_ADAPTER],
        "aliases": dict.fromkeys(sorted(models), SDK_ADAPTER),
        "fallback": [],
    }
    before = town.gateway.status()["policy"]["version"]
    (town.policies / "customers" / "sdk.yaml").write_text(yaml.safe_dump(policy))
    await eventually(lambda: town.gateway.status()["policy"]["version"] > before, within_s=20)


@pytest.mark.clients
@pytest.mark.timeout(300)
async def test_the_resources_that_are_served_pass(town: Town, tmp_path: Path) -> None:
    environment = Environment(OWN_TESTS)
    try:
        environment.expect()
    except CannotBeMade as error:
        pytest.skip(str(error))
    folder = Path("tests") / "api_resources"
    await known_as_in_its_tests(town, environment.sources / folder)
    process = await asyncio.create_subprocess_exec(
        environment.python, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider",
        "-k", f"{SERVED} and not {REFUSED} and not {STRICT} and not aiohttp", *(folder / name for name in FILES),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=environment.sources,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NO_PROXY": "*", "TEST_API_BASE_URL": town.base_url},
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode()
    assert process.returncode == 0, said[-8000:]
    passed = re.search(r"(\d+) passed", said)
    assert passed, said[-2000:]
    assert int(passed[1]) >= AT_LEAST
