"""The client libraries, each with what it shows its user of what the gateway says."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from tests.clients.environments import NODE, CannotBeMade, Environment

SCRIPTS: Final = Path(__file__).parent / "scripts"
PATIENT: Final = pytest.mark.timeout(240)
"""What only has to be imported, LiteLLM above all, takes seconds of CPU, the first time several times as many."""
ALWAYS: Final = frozenset({"plain", "stream", "tools", "structured", "cancel"})
SDK: Final = ALWAYS | {"stream-tools", "stream-structured"}
OPENAI: Final = SDK | {"completions", "models", "embeddings"}
FRAMEWORK: Final = ALWAYS | {"stream-tools"}
API = Literal["chat", "responses", "messages"]
OPENING: Final[Mapping[API, int]] = {"chat": 1, "responses": 4, "messages": 2}
"""Events of each API's streams before the first with text."""
NUMBERLESS: Final = 3
"""Tokens of the simulator's objects before the first with a number."""


@dataclass(frozen=True)
class Client:
    """One library, over one API. ``environment``: None for what ``.venv`` has.

    ``scenarios``: what its script can do. ``shows_degraded``: whether its user can read fields that it does not know.
    ``shows_model``: whether its user learns which model answered. ``streams_objects``: it has no stream of text.
    """

    name: str
    script: str
    environment: str | None = None
    scenarios: frozenset[str] = FRAMEWORK
    api: API = "chat"
    shows_degraded: bool = False
    shows_model: bool = True
    streams_objects: bool = False
    renames_streams: bool = False
    """Whether its streams bear the name of the model that was asked for, whoever answers."""

    makes_503_a_500: bool = False
    """Whether it raises what it raises for a 500; the exception behind that has the status."""

    @property
    def resumes(self) -> bool:
        """Whether the gateway goes on with its broken streams at another box."""
        return self.api == "chat"

    @property
    def opening(self) -> int:
        """Events of its stream before the first piece that it shows."""
        return OPENING[self.api] + (NUMBERLESS if self.streams_objects else 0)

    def hides(self, seen: Mapping[str, Any]) -> bool:
        """Whether it shows nothing of an answer but the object that was made of it."""
        return self.streams_objects and bool(seen["pieces"])

    def command(self) -> list[str]:
        """What starts its script. Skips the test where its environment is not there."""
        if self.environment is None:
            return [sys.executable, str(SCRIPTS / self.script)]
        environment = Environment(self.environment)
        try:
            environment.expect()
        except CannotBeMade as error:
            pytest.skip(str(error))
        runtime = environment.node if self.environment == NODE else environment.python
        return [str(runtime), str(SCRIPTS / self.script)]

    def variables(self) -> dict[str, str]:
        """The environment variables that it runs with: none that would turn it elsewhere."""
        variables = {
            "PATH": os.environ["PATH"],
            "NO_PROXY": "*",
            # Of LiteLLM: the price map that it brings, instead of one from the network.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        if self.environment is not None:
            variables["CLIENT_MODULES"] = str(Environment(self.environment).modules)
        return variables


CLIENTS: Final = (
    Client("openai", "openai_python.py", scenarios=OPENAI, shows_degraded=True),
    Client("openai-1", "openai_python.py", "openai-1", OPENAI, shows_degraded=True),
    Client("openai-2", "openai_python.py", "openai-2", OPENAI, shows_degraded=True),
    Client("openai-3", "openai_python.py", "openai-3", OPENAI, shows_degraded=True),
    Client("openai-node", "openai_node.mjs", NODE, OPENAI, shows_degraded=True),
    Client("openai-agents", "agents_sdk.py", "openai-agents", shows_model=False),
    Client("langchain", "lang_chain.py", "langchain", FRAMEWORK | {"embeddings"}),
    Client("pydantic-ai", "pydantic_agent.py", "pydantic-ai"),
    Client("instructor", "instructor_client.py", "instructor", ALWAYS, shows_degraded=True, streams_objects=True),
    Client(
        "litellm",
        "litellm_client.py",
        "litellm",
        FRAMEWORK | {"embeddings"},
        shows_degraded=True,
        renames_streams=True,
    ),
    Client("openai-responses", "openai_responses.py", None, SDK, "responses", shows_degraded=True),
    Client("openai-1-responses", "openai_responses.py", "openai-1", SDK, "responses", shows_degraded=True),
    Client("openai-2-responses", "openai_responses.py", "openai-2", SDK, "responses", shows_degraded=True),
    Client("openai-3-responses", "openai_responses.py", "openai-3", SDK, "responses", shows_degraded=True),
    Client("openai-node-responses", "openai_node_responses.mjs", NODE, SDK, "responses", shows_degraded=True),
    Client("openai-agents-responses", "agents_sdk.py", "openai-agents", api="responses", shows_model=False),
    Client("langchain-responses", "lang_chain.py", "langchain", api="responses"),
    Client("pydantic-ai-responses", "pydantic_agent.py", "pydantic-ai", api="responses"),
    Client("litellm-responses", "litellm_responses.py", "litellm", api="responses", shows_degraded=True),
    Client("anthropic", "anthropic_python.py", "anthropic", SDK, "messages", shows_degraded=True),
    Client("langchain-anthropic", "lang_chain.py", "anthropic-frameworks", api="messages"),
    Client("pydantic-ai-anthropic", "pydantic_agent.py", "anthropic-frameworks", api="messages"),
    # It streams this API only where its proxy is installed as well.
    Client(
        "litellm-anthropic",
        "litellm_messages.py",
        "litellm",
        frozenset({"plain", "tools", "structured"}),
        "messages",
        shows_degraded=True,
        makes_503_a_500=True,
    ),
)


def all_that(scenario: str, *, resume: bool | None = None) -> pytest.MarkDecorator:
    """Parametrise a test by the clients that can do ``scenario``; those in environments of their own are marked.
    ``resume``: only those whose broken streams the gateway goes on with, or only the others."""
    return pytest.mark.parametrize(
        "client",
        [
            pytest.param(
                client, id=client.name, marks=() if client.environment is None else (pytest.mark.clients, PATIENT)
            )
            for client in CLIENTS
            if scenario in client.scenarios and resume in (None, client.resumes)
        ],
    )
