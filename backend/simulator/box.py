"""The routes of a vLLM box: what it answers to what, all of it without a socket."""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any
from urllib.parse import parse_qs

import msgspec

from backend.simulator.answer import Acting, Answer, Fixed, Later
from backend.simulator.app import App
from backend.simulator.ask import Ask, count_tokens
from backend.simulator.engine import Engine
from backend.simulator.journal import Entry
from backend.simulator.model_listing import model_listing
from backend.simulator.modelled_engine import ModelledEngine, PauseMode
from backend.simulator.numbering import continued_text, numbered_arguments, numbered_text
from backend.simulator.replies import Replies, say
from backend.simulator.vllm_answers import Vllm, VllmChat, VllmCompletion
from backend.simulator.vllm_embeddings import Embed, embeddings
from backend.simulator.vllm_messages import VllmAnthropic, VllmMessage, read_message_request
from backend.simulator.vllm_refusals import (
    BUSY,
    INVALID,
    Unworded,
    another_media_type,
    bad_adapter,
    detail_body,
    invalid,
    nowhere,
    undecodable,
    unknown_model,
    wrong_method,
)
from backend.simulator.vllm_requests import check, read_chat, read_completion
from backend.simulator.vllm_responses import VllmResponse, read_response_request
from gateway.clock import wall_s
from gateway.errors import RequestError

VERSION = "0.32.0"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""What ``--api-key`` guards (``vllm/entrypoints/serve/middleware/authenticate.py``)."""
UNTYPED = b""
"""What vLLM answers with text or with nothing has no content type."""
PROMETHEUS = b"text/plain; version=%b; charset=utf-8"


RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"

ROUTES = {
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    RESPONSES: ("POST",),
    MESSAGES: ("POST",),
    "/v1/models": ("GET",),
    "/v1/load_lora_adapter": ("POST",),
    "/v1/unload_lora_adapter": ("POST",),
    "/health": ("GET",),
    "/ping": ("GET", "POST"),
    "/metrics": ("GET", "POST"),
    "/load": ("GET",),
    "/tokenize": ("POST",),
    "/version": ("GET",),
}
LOADING = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""Only under ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`` (``vllm/entrypoints/serve/lora/api_router.py``)."""
EMBEDDINGS = "/v1/embeddings"
"""Served where the box runs an embedding model."""
DEV_ROUTES = {"/sleep": ("POST",), "/wake_up": ("POST",), "/is_sleeping": ("GET",)}
"""Under ``VLLM_SERVER_DEV_MODE=1`` (``vllm/entrypoints/serve/dev/sleep/api_router.py``)."""


class _LoadAdapter(msgspec.Struct):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _Tokenize(msgspec.Struct):
    prompt: str


class _UnloadAdapter(msgspec.Struct):
    lora_name: str


class Box(App):
    """One vLLM server. ``dev_mode``: with the endpoints for sleep, which only a modelled engine has.
    ``runtime_loading`` False: without those that load and unload adapters.
    ``embeddings``: with `/v1/embeddings`, which vLLM serves of other models than those that generate.
    """

    dialect = Vllm()
    chat_answer: type[VllmChat] = VllmChat
    _anthropic = VllmAnthropic()
    generating = frozenset({"/v1/chat/completions", "/v1/completions", RESPONSES, MESSAGES, EMBEDDINGS})

    def __init__(
        self,
        engine: Engine,
        *,
        api_key: str | None,
        max_model_len: int,
        any_adapter: bool,
        dev_mode: bool = False,
        replies: Replies | None = None,
        runtime_loading: bool = True,
        embeddings: bool = False,
    ) -> None:
        self.engine = engine
        self._api_key = api_key
        self._max_model_len = max_model_len
        self._any_adapter = any_adapter
        self._replies = replies
        self._routes = {**ROUTES, **DEV_ROUTES} if dev_mode and isinstance(engine, ModelledEngine) else ROUTES
        if not runtime_loading:
            self._routes = {path: methods for path, methods in self._routes.items() if path not in LOADING}
        if embeddings:
            self._routes = {**self._routes, EMBEDDINGS: ("POST",)}
        self._ids = random.Random()  # noqa: S311  # names of answers, not secrets
        self._created = int(wall_s())

    def started(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on the engine runs."""
        self.engine.run_with(loop.call_later)

    def hang(self, hanging: bool) -> None:
        """The engine stands still, or goes on."""
        self.engine.hang(hanging)

    def state(self) -> dict[str, Any]:
        """What the engine knows of itself."""
        return {"engine": self.engine.state()}

    def answer(self, entry: Entry) -> Answer:
        """The healthy answer to a request. Raises RequestError."""
        path, method = entry.path, entry.method
        if self._api_key is not None and path.startswith(GUARDED) and not self._admitted(entry):
            return Fixed(self.dialect, b'{"error":"Unauthorized"}', status=401)
        methods = self._routes.get(path)
        if methods is None:
            raise nowhere()
        if method not in methods:
            raise wrong_method()
        match path:
            case "/v1/models":
                return self._json(model_listing(self.engine, self._created, self._max_model_len, self._ids))
            case "/health" | "/ping":
                return Fixed(self.dialect, b"", content_type=UNTYPED)
            case "/metrics":
                # As prometheus_client chooses: the newer format for who takes anything, the older for who does not say.
                version = b"1.0.0" if b"*/*" in (entry.header(b"accept") or b"") else b"0.0.4"
                metrics = self.engine.render_metrics(wall_s())
                return Fixed(self.dialect, metrics, content_type=PROMETHEUS % version)
            case "/load":
                return self._json({"server_load": self.engine.running})
            case "/tokenize":
                asked = self._read(entry, _Tokenize)
                count = count_tokens(asked.prompt)
                tokens = list(range(count))
                limit = self._max_model_len
                return self._json({"count": count, "max_model_len": limit, "tokens": tokens, "token_strs": None})
            case "/version":
                return self._json({"version": VERSION})
            case "/v1/embeddings":
                return self._embed(entry)
            case "/v1/load_lora_adapter":
                return self._load(self._read(entry, _LoadAdapter), entry)
            case "/v1/unload_lora_adapter":
                return self._unload(self._read(entry, _UnloadAdapter), entry)
        if isinstance(self.engine, ModelledEngine):
            match path:
                case "/sleep":
                    return self._sleep(self.engine, entry)
                case "/wake_up":
                    tags = parse_qs(entry.query).get("tags")
                    status = "awake" if self.engine.wake_up(tags) else "sleeping"
                    return self._json({"status": status, "tags": tags})
                case "/is_sleeping":
                    return self._json({"is_sleeping": self.engine.is_sleeping})
        return self._generate(entry)

    def refusal(self, error: RequestError) -> Answer:
        """In vLLM's envelope, but for what vLLM does not see."""
        if isinstance(error, Unworded):
            return Fixed(self.dialect, detail_body(error), status=error.status)
        return super().refusal(error)

    def _generate(self, entry: Entry) -> Answer:
        self._check_json(entry)
        if entry.path != MESSAGES:
            return self._generated(entry)
        try:
            return self._generated(entry)
        except RequestError as error:
            if error.type == INVALID:
                raise  # found by FastAPI, before the endpoint had a say
            said = self._anthropic.error_body(error.status, error.message, type=error.type)
            return Fixed(self._anthropic, said, status=error.status)

    def _generated(self, entry: Entry) -> Answer:
        chat = entry.path == "/v1/chat/completions"
        # Tests of other things than requests may leave the conversation out.
        lenient = not isinstance(self.engine, ModelledEngine)
        match entry.path:
            case "/v1/chat/completions":
                ask = read_chat(entry.body, may_be_empty=lenient)
            case "/v1/responses":
                ask = read_response_request(entry.body)
            case "/v1/messages":
                ask = read_message_request(entry.body)
            case _:
                ask = read_completion(entry.body)
        name = self._named(entry, ask.model)
        check(ask, self._max_model_len)
        length = self.engine.pace.tokens
        reply = self._replies.find(name, entry.body) if chat and self._replies is not None else None
        if reply is not None:
            said = say(reply, ask)
        elif ask.tool is not None or ask.json:
            said = numbered_arguments(name, length, ask.limit)
        elif ask.behind:
            said = continued_text(name, length, ask.limit, ask.behind)
        else:
            said = numbered_text(name, length, ask.limit)
        flight = self.engine.admit(
            name,
            prompt_tokens=ask.prompt_tokens,
            tokens=len(said.tokens),
            finish=said.finish,
            sequences=ask.n * ask.prompts,
        )
        if flight is None:
            raise RequestError(503, BUSY, type="Service Unavailable")
        request_id = self._request_id(entry, ask)
        if entry.path == RESPONSES:
            # Its id is the body's or the engine's own, whatever the headers say.
            own = ask.request_id or f"{self._ids.getrandbits(128):032x}"
            return VllmResponse(
                self.dialect,
                flight,
                ask,
                said,
                fields=msgspec.json.decode(entry.body),
                name=name,
                request_id=own.removeprefix("resp_"),
                created=int(wall_s()),
            )
        if entry.path == MESSAGES:
            return VllmMessage(self._anthropic, flight, ask, said, name=name, request_id=request_id)
        shape = self.chat_answer if chat else VllmCompletion
        return shape(
            self.dialect,
            flight,
            ask,
            said,
            name=name,
            request_id=request_id,
            created=int(wall_s()),
        )

    def _named(self, entry: Entry, model: str | None) -> str:
        name = model or self.engine.base
        entry.model = name
        if not self.engine.serves(name):
            if not self._any_adapter:
                raise unknown_model(name, self.engine.base)
            self.engine.adapters[name] = f"/adapters/{name}"
        return name

    def _embed(self, entry: Entry) -> Answer:
        asked = self._read(entry, Embed)
        name = self._named(entry, asked.model)
        return self._json(embeddings(asked, name, id=f"embd-{self._ids.getrandbits(64):016x}", created=int(wall_s())))

    def _request_id(self, entry: Entry, ask: Ask) -> str:
        given = entry.header(b"x-request-id")
        if given is not None:
            return given.decode("latin-1")
        return ask.request_id or f"{self._ids.getrandbits(64):016x}"

    def _admitted(self, entry: Entry) -> bool:
        scheme, _, key = (entry.header(b"authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(key, (self._api_key or "").encode())

    def _load(self, wanted: _LoadAdapter, entry: Entry) -> Answer:
        # As rules know an adapter by.
        entry.model = name = wanted.lora_name
        if not name or not wanted.lora_path:
            raise bad_adapter("Both 'lora_name' and 'lora_path' must be provided.")
        if name == self.engine.base:
            raise bad_adapter(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.engine.adapters and not wanted.load_inplace:
            raise bad_adapter(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
        said = f"Success: LoRA adapter '{name}' added successfully.".encode()
        return Acting(self.dialect, said, lambda: self.engine.load(name, wanted.lora_path), content_type=UNTYPED)

    def _unload(self, wanted: _UnloadAdapter, entry: Entry) -> Answer:
        entry.model = name = wanted.lora_name
        if not name:
            raise bad_adapter("'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.engine.adapters:
            raise RequestError(404, f"The lora adapter '{name}' cannot be found.", type="NotFoundError")
        said = f"Success: LoRA adapter '{name}' removed successfully.".encode()
        return Acting(self.dialect, said, lambda: self.engine.unload(name), content_type=UNTYPED)

    def _sleep(self, engine: ModelledEngine, entry: Entry) -> Answer:
        query = parse_qs(entry.query)
        level = query.get("level", ["1"])[0]
        if level not in ("0", "1", "2"):
            raise invalid("Input should be an integer from 0 to 2", param="query.level")
        try:
            mode = msgspec.convert(query.get("mode", ["abort"])[0], PauseMode)
        except msgspec.ValidationError as error:
            raise invalid(str(error), param="query.mode") from None
        body = msgspec.json.encode({"status": "sleeping", "level": int(level)})
        return Later(self.dialect, body, after=engine.sleep(int(level), mode))

    def _check_json(self, entry: Entry) -> None:
        kind = (entry.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise another_media_type()

    def _read(self, entry: Entry, shape: type[Any]) -> Any:
        self._check_json(entry)
        try:
            return msgspec.json.decode(entry.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise undecodable(entry.body, error) from None

    def _json(self, value: Any) -> Answer:
        return Fixed(self.dialect, msgspec.json.encode(value))
