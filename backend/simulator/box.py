"""The routes of a vLLM box: what it answers to what, all of it without a socket."""

from __future__ import annotations

import random
import secrets
from typing import Any

import msgspec

from backend.simulator.answer import Answer, Fixed
from backend.simulator.app import App
from backend.simulator.ask import Ask
from backend.simulator.engine import Engine
from backend.simulator.journal import Entry
from backend.simulator.numbering import numbered_arguments, numbered_text
from backend.simulator.vllm_answers import Vllm, VllmChat, VllmCompletion
from backend.simulator.vllm_requests import (
    BUSY,
    check_length,
    invalid,
    read_chat,
    read_completion,
    unknown_model,
)
from gateway.clock import wall_s
from gateway.errors import RequestError

VERSION = "0.32.0"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""What ``--api-key`` guards (``vllm/entrypoints/serve/middleware/authenticate.py``)."""
TEXT = b"text/plain; charset=utf-8"
PROMETHEUS = b"text/plain; version=1.0.0; charset=utf-8"


class _LoadAdapter(msgspec.Struct):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _UnloadAdapter(msgspec.Struct):
    lora_name: str


class Box(App):
    """One vLLM server."""

    dialect = Vllm()
    generating = frozenset({"/v1/chat/completions", "/v1/completions"})

    def __init__(self, engine: Engine, *, api_key: str | None, max_model_len: int, any_adapter: bool) -> None:
        self.engine = engine
        self._api_key = api_key
        self._max_model_len = max_model_len
        self._any_adapter = any_adapter
        self._ids = random.Random()  # noqa: S311  # names of answers, not secrets
        self._created = int(wall_s())

    def answer(self, entry: Entry) -> Answer:
        """The healthy answer to a request. Raises RequestError."""
        path, method = entry.path, entry.method
        if self._api_key is not None and path.startswith(GUARDED) and not self._admitted(entry):
            return Fixed(self.dialect, b'{"error":"Unauthorized"}', status=401)
        if path in self.generating:
            if method != "POST":
                raise RequestError(405, "Method Not Allowed", type="Method Not Allowed")
            return self._generate(entry)
        if method == "GET":
            match path:
                case "/v1/models":
                    return self._json({"object": "list", "data": self._models()})
                case "/health" | "/ping":
                    return Fixed(self.dialect, b"", content_type=TEXT)
                case "/metrics":
                    return Fixed(self.dialect, self.engine.render_metrics(wall_s()), content_type=PROMETHEUS)
                case "/load":
                    return self._json({"server_load": self.engine.running})
                case "/version":
                    return self._json({"version": VERSION})
        elif method == "POST" and path == "/v1/load_lora_adapter":
            return self._load(self._read(entry, _LoadAdapter))
        elif method == "POST" and path == "/v1/unload_lora_adapter":
            return self._unload(self._read(entry, _UnloadAdapter))
        raise RequestError(404, "Not Found", type="Not Found")

    def _generate(self, entry: Entry) -> Answer:
        self._check_json(entry)
        chat = entry.path == "/v1/chat/completions"
        ask = read_chat(entry.body) if chat else read_completion(entry.body)
        name = ask.model or self.engine.base
        entry.model = name
        if not self.engine.serves(name):
            if not self._any_adapter:
                raise unknown_model(name, self.engine.base)
            self.engine.adapters[name] = f"/adapters/{name}"
        check_length(ask, self._max_model_len)
        length = self.engine.pace.tokens
        numbered = numbered_text if ask.tool is None else numbered_arguments
        said = numbered(name, length, ask.limit)
        flight = self.engine.admit(name, prompt_tokens=ask.prompt_tokens, tokens=len(said.tokens), finish=said.finish)
        if flight is None:
            raise RequestError(503, BUSY, type="Service Unavailable")
        shape = VllmChat if chat else VllmCompletion
        return shape(
            self.dialect,
            flight,
            ask,
            said,
            name=name,
            request_id=self._request_id(entry, ask),
            created=int(wall_s()),
        )

    def _request_id(self, entry: Entry, ask: Ask) -> str:
        given = entry.header(b"x-request-id")
        if given is not None:
            return given.decode("latin-1")
        return ask.request_id or f"{self._ids.getrandbits(64):016x}"

    def _admitted(self, entry: Entry) -> bool:
        scheme, _, key = (entry.header(b"authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(key, (self._api_key or "").encode())

    def _models(self) -> list[dict[str, Any]]:
        base = self.engine.base
        card = {"object": "model", "created": self._created, "owned_by": "vllm"}
        return [
            {"id": base, **card, "root": base, "parent": None, "max_model_len": self._max_model_len, "permission": []},
            *(
                {"id": name, **card, "root": path, "parent": base, "max_model_len": None, "permission": []}
                for name, path in self.engine.adapters.items()
            ),
        ]

    def _load(self, wanted: _LoadAdapter) -> Answer:
        name = wanted.lora_name
        if not name or not wanted.lora_path:
            raise RequestError(400, "Both 'lora_name' and 'lora_path' must be provided.", type="InvalidUserInput")
        if name == self.engine.base:
            message = f"The lora adapter '{name}' conflicts with a served base model."
            raise RequestError(400, message, type="InvalidUserInput")
        if name in self.engine.adapters and not wanted.load_inplace:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
            raise RequestError(400, message, type="InvalidUserInput")
        self.engine.adapters[name] = wanted.lora_path
        return Fixed(self.dialect, f"Success: LoRA adapter '{name}' added successfully.".encode(), content_type=TEXT)

    def _unload(self, wanted: _UnloadAdapter) -> Answer:
        name = wanted.lora_name
        if name not in self.engine.adapters:
            raise RequestError(404, f"The lora adapter '{name}' cannot be found.", type="NotFoundError")
        del self.engine.adapters[name]
        return Fixed(self.dialect, f"Success: LoRA adapter '{name}' removed successfully.".encode(), content_type=TEXT)

    def _check_json(self, entry: Entry) -> None:
        kind = (entry.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            raise RequestError(400, message, type="Bad Request")

    def _read(self, entry: Entry, shape: type[Any]) -> Any:
        self._check_json(entry)
        try:
            return msgspec.json.decode(entry.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise invalid(str(error), param="body") from None

    def _json(self, value: Any) -> Answer:
        return Fixed(self.dialect, msgspec.json.encode(value))
