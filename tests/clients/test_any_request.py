"""The description of `/v1` says what is served, and nothing that fits it, or nearly does, gets a 5xx."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.dataplane.request import PATHS
from tests.clients.environments import CannotBeMade, Environment
from tests.clients.town import ACME, Town
from tests.support.raw_client import RawClient

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
EXAMPLES = 40
"""Of each operation, beside those that cover its schema's edges."""


async def described(town: Town) -> dict[str, Any]:
    recording = await RawClient(town.gateway.url).ask("/v1/openapi.json", method="GET")
    assert recording.status == 200
    document: dict[str, Any] = recording.json()
    return document


async def test_the_description_needs_no_key_and_names_all_that_is_served(town: Town) -> None:
    paths = (await described(town))["paths"]
    assert set(paths) == {*PATHS.values(), "/v1/models", "/v1/models/{model}"}


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/v1/chat/completions", "post", {"messages": [{"role": "user", "content": "hello"}]}, 200),
        ("/v1/chat/completions", "post", {}, 400),
        ("/v1/chat/completions", "post", {"model": "nobodys", "messages": []}, 404),
        ("/v1/completions", "post", {"prompt": "hello"}, 200),
        ("/v1/models", "get", None, 200),
    ],
)
async def test_answers_are_as_described(town: Town, path: str, method: str, body: Any, status: int) -> None:
    document = await described(town)
    if body is not None:
        body = {"model": ACME.adapters[0], **body}
    recording = await RawClient(town.gateway.url, key=ACME.key).ask(path, body, method=method.upper())
    assert recording.status == status
    answer = document["paths"][path][method]["responses"][str(status)]
    assert recording.headers["content-type"] in answer["content"]
    assert set(answer["headers"]) - {"x-failsoft-degraded", "x-failsoft-model"} <= set(recording.headers)
    schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(recording.json())


@pytest.mark.clients
@pytest.mark.timeout(400)
async def test_nothing_that_can_be_asked_is_answered_with_a_server_error(town: Town, tmp_path: Path) -> None:
    environment = Environment("schemathesis")
    try:
        environment.expect()
    except CannotBeMade as error:
        pytest.skip(str(error))
    document = await described(town)
    # Else hardly any request would come as far as a box.
    models = list(ACME.adapters[:3])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "requestBody" in operation:
                fields = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
                fields["model"] = {"enum": models}
            # Who gives it a millisecond is told in a 503 that nobody could answer in time, and rightly so.
            parameters = [one for one in operation.get("parameters", ()) if one["name"] != "x-request-timeout-ms"]
            operation["parameters"] = parameters
            for parameter in parameters:
                if parameter["name"] == "model":
                    parameter["schema"] = {"enum": models}
        assert operations, path
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *environment.program("schemathesis"), "run", description, "--url", town.gateway.url,
        "--header", f"Authorization: Bearer {ACME.key}", "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--mode", "all",
        "--seed", "1", "--workers", "1", "--request-timeout", "30", "--suppress-health-check", "all", "--no-color",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path, env={"PATH": str(environment.folder / "bin"), "HOME": str(tmp_path), "NO_PROXY": "*"},
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()[-8000:]
    arrived = [entry for box in town.boxes.values() for model in models for entry in box.admin.requests(model=model)]
    assert {entry["path"] for entry in arrived} == set(PATHS.values()), "boxes were not asked: this proves nothing"
