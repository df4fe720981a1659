"""Loads, asks and unloads adapters at one box: thin I/O, whatever it comes to is said in words for operators."""

from __future__ import annotations

import asyncio
import json

import msgspec

from gateway.errors import Aborted, ErrorFrame, ProtocolError, UpstreamStatus
from gateway.fleet.adapter_listing import adapter_roots
from gateway.fleet.probe_answer import ProbeAnswer
from gateway.fleet.request_head import request_head
from gateway.policy.compiled import BoxSpec
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Pool
from gateway.upstream.refusal import read_refusal

LIST_S = 10.0
LOAD_S = 300.0
"""Some hundred MB from a network disk; requests in flight go on meanwhile."""
UNLOAD_S = 10.0
CANARY_S = 60.0
"""On a box full of others a cold adapter waits for a slot."""
BUSY_AGAIN_S = 0.5

LIMIT_BYTES = 1 << 20
MOST_WORDS = 500
"""Characters of what a box says that people are told."""

_BUSY = frozenset({429, 503})

LOADING_OFF = (
    "the box takes no adapters at run time: start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora "
    "(`failsoft backend launch` and `backend command` do, unless engine.runtime_loading is false)"
)
WRONG_KEY = "the box refuses our key: check its api_key in fleet.yaml, and that the variable is set here"


class Refused(Exception):
    """The box answered, and will not. The message holds its words; ``harmless``: it is known to be none the worse."""

    def __init__(self, message: str, *, harmless: bool = True) -> None:
        super().__init__(message)
        self.harmless = harmless


class LoadingOff(Refused):
    """It has no way to load or unload adapters while it serves."""


class AlreadyThere(Refused):
    """Somebody else has loaded it meanwhile."""


class AlreadyGone(Refused):
    """Somebody else has unloaded it meanwhile."""


class BoxLink:
    """One box. Every method raises :class:`~gateway.errors.UpstreamError` where it does not answer in order."""

    def __init__(self, spec: BoxSpec, pool: Pool) -> None:
        self.spec = spec
        self._pool = pool

    def is_at(self, pool: Pool) -> bool:
        """Whether ``pool`` is the one that it asks through."""
        return self._pool is pool

    async def listed(self) -> dict[str, str | None]:
        """Its adapters, and where each was loaded from. Raises Refused as well."""
        try:
            return await adapter_roots(self._pool, self.spec, _now() + LIST_S)
        except UpstreamStatus as error:
            if error.status in (401, 403):
                raise Refused(WRONG_KEY) from error
            raise

    async def load(self, adapter: str, path: str) -> None:
        """Load it, never in place (vLLM would read it again at every step). Raises Refused as well."""
        status, body = await self._post("/v1/load_lora_adapter", {"lora_name": adapter, "lora_path": path}, LOAD_S)
        if status == 200:
            return
        words = words_of(body)
        if status == 400 and "already" in words:
            raise AlreadyThere(words)
        raise _refused(status, body, words)

    async def unload(self, adapter: str) -> None:
        """Unload it. Raises Refused as well."""
        status, body = await self._post("/v1/unload_lora_adapter", {"lora_name": adapter}, UNLOAD_S)
        if status == 200:
            return
        words = words_of(body)
        if status == 404 and not _no_such_path(body):
            raise AlreadyGone(words)
        raise _refused(status, body, words)

    async def canary(self, model: str, within_s: float = CANARY_S) -> None:
        """Ask it for one token, and again while the box says that it is busy. Raises Refused where none comes."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "ping"}],
            "max_tokens": 1,
            "stream": True,
            "temperature": 0,
        }
        until = _now() + within_s
        while True:
            try:
                await self._token(json.dumps(body).encode(), until)
            except (UpstreamStatus, ErrorFrame) as error:
                if error.status in _BUSY and _now() + BUSY_AGAIN_S < until:
                    await asyncio.sleep(BUSY_AGAIN_S)
                    continue
                text = f"status {error.status}: {words_of(error.body) or error}"
                raise Refused(text, harmless=error.status is not None and error.status < 500) from error
            except (ProtocolError, Aborted) as error:
                raise Refused(str(error), harmless=False) from error
            return

    async def _token(self, body: bytes, until: float) -> None:
        exchange = await self._send("/v1/chat/completions", body, until)
        try:
            exchange.until = until
            if exchange.status != 200:
                raise await read_refusal(exchange, LIMIT_BYTES)
            answer, alive = ProbeAnswer(), False
            # To its end: an error may come behind the token, and the connection can be used again.
            while data := await exchange.read():
                alive |= answer.feed(data)
            if not alive:
                raise ProtocolError("its answer is empty")
        finally:
            exchange.close()

    async def _post(self, path: str, fields: dict[str, str], within_s: float) -> tuple[int, bytes]:
        until = _now() + within_s
        exchange = await self._send(path, json.dumps(fields).encode(), until)
        try:
            exchange.until = until
            return exchange.status, await exchange.read_all(LIMIT_BYTES)
        finally:
            exchange.close()

    async def _send(self, path: str, body: bytes, until: float) -> Exchange:
        head = request_head(
            "POST", self._pool.origin, path, api_key=self.spec.api_key, header=b"content-type: application/json"
        )
        return await self._pool.exchange(head, body, until)


def words_of(body: bytes) -> str:
    """What an error's body says, in one line: vLLM's message, or the text itself."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = body.decode("utf-8", "replace")
    if isinstance(found, dict):
        error = found.get("error", found)
        found = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    line = " ".join(str(found).split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= MOST_WORDS else f"{printable[:MOST_WORDS]}…"


def _refused(status: int, body: bytes, words: str) -> Refused:
    if status in (401, 403):
        return Refused(WRONG_KEY)
    if status == 405 or (status == 404 and _no_such_path(body)):
        return LoadingOff(LOADING_OFF)
    return Refused(f"status {status}: {words}", harmless=status < 500)


def _no_such_path(body: bytes) -> bool:
    """FastAPI's own 404 has a ``detail``, where vLLM's about an adapter has an ``error``."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return not (isinstance(found, dict) and isinstance(found.get("error"), dict))


def _now() -> float:
    return asyncio.get_running_loop().time()
