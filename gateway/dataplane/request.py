"""What the gateway reads of a request: parsed once, the rest of the body travels on untouched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from gateway.dataplane.renaming import with_model
from gateway.dataplane.said import Said
from gateway.dataplane.told_tokens import tokens_wanted
from gateway.errors import RequestError
from gateway.upstream.chat_wire import NoTwin
from gateway.upstream.provider_request import Endpoint, in_chat

PATHS: dict[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
}

RESUMABLE = frozenset({"chat", "completions"})
"""Endpoints whose broken streams may go on at another box."""


_STRUCTURE = ("tools", "functions", "structured_outputs")
"""Fields that have the answer be something other than prose."""

_FORMATS = ("response_format", "text", "output_config")
"""Where chat, responses and messages say the answer's format; the latter two have it one level deeper."""

_KEPT_ELSEWHERE = ("previous_response_id", "conversation", "background")
"""Fields of a response that need a server which keeps what was said: vLLM does so in one box's memory, if at all."""

_VECTORS = (None, "float", "base64")


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


_ABSENT = _StreamOptions()
"""In the place of ``stream_options`` that are not there."""

_ASKED_FOR_USAGE = b'{"stream_options":{"include_usage":true},'


class _Body(msgspec.Struct):
    """The fields that decide something here. Everything else is skipped over without being built."""

    model: str
    stream: bool | None = None
    n: int | None = None
    prompt: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    stream_options: _StreamOptions | None = _ABSENT
    max_tokens: Any = None
    max_completion_tokens: Any = None
    logprobs: Any = None
    return_token_ids: Any = None
    seed: Any = msgspec.UNSET
    temperature: Any = None


class _OtherBody(msgspec.Struct):
    """The same of the other endpoints."""

    model: str
    stream: bool | None = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    input: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    encoding_format: Any = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_other = msgspec.json.Decoder(_OtherBody).decode


@dataclass
class Request:
    """One request of one client, as far as decisions need it.

    ``choices`` is how many choices the answer has to finish (``n`` times the number of prompts), or how many embeddings
    it has to have. ``model`` is what the client asked for, ``adapter`` what boxes know it as: another name where it is
    an alias. ``others``: the alias's other versions, in the order in which they may stand in for that one.
    """

    id: str
    endpoint: Endpoint
    body: bytes
    model: str
    stream: bool
    choices: int
    include_usage: bool
    adapter: str
    fallback_allowed: bool = True
    others: tuple[str, ...] = ()
    _bodies: dict[str, bytes] | None = field(default=None, repr=False)
    names_stream_options: bool = False
    """Whether the body has ``stream_options``, whatever is in it."""
    max_tokens: Any = None
    """Of each choice, as the client wrote it."""
    tells_tokens: bool = False
    """Whether the client asks for something of each token."""
    is_sampled: bool = False
    """Whether chance decides what is said, and no seed of the client's does."""
    names_seed: bool = False
    """Whether the body has a ``seed``, whatever it is."""
    seed: int | None = None
    """Which boxes are to use in the place of none."""
    deadline_s: float | None = None
    """Within which the client wants its first content, where it says so."""
    is_retry: bool = False
    """Whether the client asks for the same once more, as its SDK does by itself."""
    resumes: bool = False
    """Whether another box is to go on with a stream that breaks."""
    restarts: bool = False
    """Whether a stream that breaks is to be asked for anew, while next to nothing of it was told."""
    told: Said | None = None
    """What its client has of a stream that broke off, while that is asked for anew."""
    fallback_only: bool = False
    """An eval asks for what the fallback says, and for nothing else."""

    @property
    def path(self) -> str:
        """The path under which a box serves this request."""
        return PATHS[self.endpoint]

    def resolved(self, adapter: str, *others: str) -> None:
        """``model`` is an alias, and stands for ``adapter``. Raises as :attr:`fields`."""
        try:
            self._bodies = {adapter: with_model(self.body, adapter)}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(400, f"The request body is not valid JSON: {error}") from error
        self.adapter = adapter
        self.others = others

    def body_for(self, adapter: str) -> bytes:
        """The body as a box is to get it: the client's own, byte by byte, but for the name where an alias was asked
        for, the seed where it gets one, and the wish to hear what a stream took, whether the client has it or not."""
        body = self.body if adapter == self.model else self._renamed(adapter)
        wish = self.stream and not self.include_usage
        if not wish and self.seed is None:
            return body
        if (wish and self.names_stream_options) or (self.seed is not None and self.names_seed):
            return msgspec.json.encode(self.fields_with_usage | {"model": adapter})
        front = _ASKED_FOR_USAGE if wish else b"{"
        if self.seed is not None:
            front += b'"seed":%d,' % self.seed
        return front + body[body.index(b"{") + 1 :]

    def _renamed(self, adapter: str) -> bytes:
        if self._bodies is None:
            raise ValueError(f"{self.model} stands for no {adapter}")
        body = self._bodies.get(adapter)
        if body is None:
            body = self._bodies[adapter] = with_model(self.body, adapter)
        return body

    @property
    def fields_with_usage(self) -> dict[str, Any]:
        """The fields for a body that is made anew, with that seed and that wish."""
        fields = self.fields if self.seed is None else self.fields | {"seed": self.seed}
        if not self.stream or self.include_usage:
            return fields
        options = fields.get("stream_options")
        kept = options if isinstance(options, dict) else {}
        # With `include_usage` comes what goes without effect as long as that is not asked for.
        kept = {name: value for name, value in kept.items() if name != "continuous_usage_stats"}
        return fields | {"stream_options": kept | {"include_usage": True}}

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The whole body as a dict: built only when a fallback step has to change or inspect it.

        Raises :class:`RequestError` where a part that the first look skipped over turns out not to be JSON.
        """
        try:
            fields: dict[str, Any] = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(400, f"The request body is not valid JSON: {error}") from error
        return fields

    @cached_property
    def as_chat(self) -> tuple[Endpoint, Mapping[str, Any]] | str:
        """What providers are asked, once for all of them; or what chat has no word for. Raises as :attr:`fields`."""
        try:
            return in_chat(self.endpoint, self.fields)
        except NoTwin as error:
            return str(error)

    @property
    def asks_for_structure(self) -> bool:
        """Whether fixed text would break the caller: it expects a tool call or JSON. Raises as :attr:`fields`."""
        fields = self.fields
        if any(fields.get(name) for name in _STRUCTURE):
            return True
        return any(_asks_for_json(fields.get(name)) for name in _FORMATS)


def parse_request(body: bytes, *, id: str, endpoint: Endpoint, fallback_allowed: bool = True) -> Request:
    """Read ``body``.

    Raises :class:`RequestError` with status 400 where it is not a JSON object, names no model, or has one of the
    fields read here in a wrong type.
    """
    if endpoint not in RESUMABLE:
        return _other_request(body, id, endpoint, fallback_allowed)
    wire: _Body = _parsed(_decode, body)
    options = wire.stream_options
    choices = 1 if wire.n is None else wire.n
    if endpoint == "completions":
        choices *= _items(bytes(wire.prompt), "prompt")
    return Request(
        id=id,
        endpoint=endpoint,
        body=body,
        model=wire.model,
        stream=bool(wire.stream),
        choices=max(1, choices),
        include_usage=bool(options and options.include_usage),
        adapter=wire.model,
        fallback_allowed=fallback_allowed,
        names_stream_options=options is not _ABSENT,
        max_tokens=wire.max_completion_tokens or wire.max_tokens,
        is_sampled=wire.seed in (msgspec.UNSET, None) and wire.temperature != 0,
        names_seed=wire.seed is not msgspec.UNSET,
        tells_tokens=tokens_wanted(wire.logprobs, wire.return_token_ids),
    )


def _other_request(body: bytes, id: str, endpoint: Endpoint, fallback_allowed: bool) -> Request:
    wire: _OtherBody = _parsed(_decode_other, body)
    request = Request(
        id=id,
        endpoint=endpoint,
        body=body,
        model=wire.model,
        stream=bool(wire.stream),
        choices=1,
        # Of what was used these say all unasked.
        include_usage=True,
        adapter=wire.model,
        fallback_allowed=fallback_allowed,
        max_tokens=wire.max_tokens if endpoint == "messages" else wire.max_output_tokens,
    )
    if endpoint == "responses":
        for name in _KEPT_ELSEWHERE:
            if getattr(wire, name):
                raise RequestError(
                    400, f"`{name}` is not supported: no box keeps responses. Send the whole conversation.", param=name
                )
    elif endpoint == "embeddings":
        if wire.encoding_format not in _VECTORS:
            raise RequestError(400, "`encoding_format` must be float or base64.", param="encoding_format")
        request.stream = False
        # Another model's vectors would corrupt the customer's index in silence: there is no stand-in for them.
        request.fallback_allowed = False
        request.choices = max(1, _items(bytes(wire.input), "input"))
        # None is generated; this is what limits are to reckon with for each.
        request.max_tokens = 1
    return request


def _parsed(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        wire = decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, f"The request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise RequestError(400, "The request body is nested too deeply.") from error
    if not wire.model:
        raise RequestError(400, "`model` is empty: name the adapter to ask.", param="model")
    return wire


def _asks_for_json(wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return False
    inner = wanted.get("format")
    return (inner if isinstance(inner, dict) else wanted).get("type") not in (None, "text")


def _items(raw: bytes, name: str) -> int:
    """How many prompts or inputs a request carries: a list of strings or of token lists counts its items."""
    if not raw.startswith(b"["):
        return 1
    try:
        items = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"`{name}` is not valid JSON: {error}", param=name) from error
    return len(items) if items and not isinstance(items[0], int) else 1


def _invalid(error: msgspec.ValidationError) -> RequestError:
    message = str(error)
    if "missing required field `model`" in message:
        return RequestError(400, "`model` is missing: name the adapter to ask.", param="model")
    if " - at `$." not in message:
        return RequestError(400, f"The request body must be a JSON object: {message}.")
    what, _, where = message.partition(" - at `$.")
    param = where.rstrip("`")
    return RequestError(400, f"`{param}` has the wrong type: {what[0].lower()}{what[1:]}.", param=param)
