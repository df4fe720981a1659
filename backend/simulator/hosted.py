"""Stand-ins for hosted providers: the generic model that answers when the boxes do not."""

from __future__ import annotations

import random
import secrets

import msgspec

from backend.simulator.answer import Answer, Fixed
from backend.simulator.anthropic_answers import Anthropic, AnthropicMessage, read_messages
from backend.simulator.app import App
from backend.simulator.engine import Engine, Flight
from backend.simulator.journal import Entry
from backend.simulator.numbering import Numbered, numbered_arguments, numbered_text
from backend.simulator.openai_answers import OpenAI, OpenAIChat, read_openai_chat
from backend.simulator.replies import Replies, say
from gateway.clock import wall_s
from gateway.errors import RequestError

GENERIC = "generic"
"""The name that a provider's numbered answers begin with, whatever model was asked for."""


class Hosted(App):
    """What the stand-ins have in common. ``api_key`` None: any key will do, but one there has to be."""

    def __init__(self, engine: Engine, *, api_key: str | None) -> None:
        self.engine = engine
        self._api_key = api_key
        self._ids = random.Random()  # noqa: S311  # names of answers, not secrets

    def _id(self) -> str:
        return f"{self._ids.getrandbits(96):024x}"

    def _right_key(self, key: bytes) -> bool:
        return bool(key) and (self._api_key is None or secrets.compare_digest(key, self._api_key.encode()))

    def _admit(self, model: str | None, prompt_tokens: int, said: Numbered) -> Flight:
        flight = self.engine.admit(
            model or "", prompt_tokens=prompt_tokens, tokens=len(said.tokens), finish=said.finish
        )
        if flight is None:
            raise RequestError(429, "Rate limit reached for requests.", type="requests", code="rate_limit_exceeded")
        return flight


class HostedOpenAI(Hosted):
    """OpenAI's ``/v1/chat/completions`` and ``/v1/models``, and nothing else. ``models``: empty takes any."""

    dialect = OpenAI()
    generating = frozenset({"/v1/chat/completions"})
    chat_answer: type[OpenAIChat] = OpenAIChat

    def __init__(
        self, engine: Engine, *, api_key: str | None, models: tuple[str, ...] = (), replies: Replies | None = None
    ) -> None:
        super().__init__(engine, api_key=api_key)
        self._models = models
        self._replies = replies

    def answer(self, entry: Entry) -> Answer:
        """The healthy answer. Raises RequestError."""
        if entry.path == "/health":
            return Fixed(self.dialect, b"")
        self._check_key(entry)
        match entry.method, entry.path:
            case "POST", "/v1/chat/completions":
                return self._chat(entry)
            case "GET", "/v1/models":
                data = [{"id": m, "object": "model", "created": 0, "owned_by": "system"} for m in self._models]
                return Fixed(self.dialect, msgspec.json.encode({"object": "list", "data": data}))
        raise RequestError(404, f"Invalid URL ({entry.method} {entry.path})")

    def _chat(self, entry: Entry) -> Answer:
        ask = read_openai_chat(entry.body)
        entry.model = ask.model
        if self._models and ask.model not in self._models:
            message = f"The model `{ask.model}` does not exist or you do not have access to it."
            raise RequestError(404, message, code="model_not_found")
        numbered = numbered_arguments if ask.tool is not None or ask.json else numbered_text
        reply = None if self._replies is None else self._replies.find(ask.model, entry.body)
        said = numbered(GENERIC, self.engine.pace.tokens, ask.limit) if reply is None else say(reply, ask)
        flight = self._admit(ask.model, ask.prompt_tokens, said)
        return self.chat_answer(self.dialect, flight, ask, said, id=self._id(), created=int(wall_s()))

    def _check_key(self, entry: Entry) -> None:
        scheme, _, key = (entry.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            raise RequestError(401, message)
        if not self._right_key(key):
            raise RequestError(401, "Incorrect API key provided.", code="invalid_api_key")


class HostedAnthropic(Hosted):
    """Anthropic's ``/v1/messages``."""

    dialect = Anthropic()
    generating = frozenset({"/v1/messages"})

    def answer(self, entry: Entry) -> Answer:
        """The healthy answer. Raises RequestError."""
        if entry.path == "/health":
            return Fixed(self.dialect, b"")
        if not self._right_key(entry.header(b"x-api-key") or b""):
            raise RequestError(401, "invalid x-api-key", type="authentication_error")
        if (entry.method, entry.path) != ("POST", "/v1/messages"):
            raise RequestError(404, "Not found", type="not_found_error")
        if entry.header(b"anthropic-version") is None:
            raise RequestError(400, "anthropic-version: header is required")
        ask = read_messages(entry.body)
        entry.model = ask.model
        numbered = numbered_text if ask.tool is None else numbered_arguments
        said = numbered(GENERIC, self.engine.pace.tokens, ask.limit)
        flight = self._admit(ask.model, ask.prompt_tokens, said)
        return AnthropicMessage(self.dialect, flight, ask, said, id=self._id())
