"""A little steady traffic of the demo's customers, and what each of them got."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from gateway.demo.cast import Customer
from gateway.demo.question import MAX_TOKENS, question, shown
from gateway.tasks import TaskSet

PATIENCE_S: Final = 40.0
AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """What a customer got for one request, as the customer sees it.

    ``first_s``: seconds until the first content, of a plain request until the whole answer. ``error``: what came in
    place of an answer, or cut it off. ``call``: the tool call that it was.
    """

    customer: str
    stream: bool
    first_s: float
    served_by: str
    model: str
    degraded: str | None = None
    error: str | None = None
    call: str | None = None


class Traffic:
    """Asks ``per_second`` times a second on behalf of customers by their weight, half of it streaming."""

    def __init__(
        self,
        base_url: str,
        customers: tuple[Customer, ...],
        *,
        per_second: float,
        tell: Callable[[Answer], None],
        seed: int = 0,
    ) -> None:
        self._customers = customers
        self._interval_s = 1 / per_second
        self._tell = tell
        self._random = random.Random(seed)  # noqa: S311 - the order of a demo's customers is no secret
        self._client = httpx2.AsyncClient(base_url=base_url, timeout=PATIENCE_S, trust_env=False)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks = TaskSet()

    async def run(self, limit: int | None = None) -> None:
        """Ask until cancelled, or until ``limit`` requests are answered."""
        try:
            for customer, stream in itertools.islice(self._order(), limit):
                await self._places.acquire()  # when everything hangs, more of the same would show nothing
                self._tasks.spawn(self._ask_and_tell(customer, stream=stream), name=f"demo request of {customer.name}")
                await asyncio.sleep(self._interval_s)
            for _ in range(AT_ONCE):  # once every place is ours, nobody waits for an answer any more
                await self._places.acquire()
        finally:
            await self._tasks.close()
            await self._client.aclose()

    def _order(self) -> Iterator[tuple[Customer, bool]]:
        weights = [customer.weight for customer in self._customers]
        for number in itertools.count():
            # Everyone once at first, so that all are on the screen within a second or two.
            if number < len(self._customers):
                yield self._customers[number], number % 2 == 1
            else:
                yield self._random.choices(self._customers, weights)[0], self._random.random() < 0.5

    async def _ask_and_tell(self, customer: Customer, *, stream: bool) -> None:
        began = time.monotonic()
        try:
            answer = await self._ask(customer, stream=stream)
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            waited_s = time.monotonic() - began
            answer = Answer(customer.name, stream, waited_s, "none", "none", error=f"{type(error).__name__}: {error}")
        finally:
            self._places.release()
        self._tell(answer)

    async def _ask(self, customer: Customer, *, stream: bool) -> Answer:
        began = time.monotonic()
        request = {**question(customer.adapter), "max_tokens": MAX_TOKENS, "temperature": 0, "stream": stream}
        headers = {"authorization": f"Bearer {customer.key}"}
        async with self._client.stream("POST", "/v1/chat/completions", json=request, headers=headers) as response:
            served_by = response.headers.get("x-failsoft-served-by", "unknown")
            degraded = response.headers.get("x-failsoft-degraded")
            model, error, call = customer.adapter, None, None
            first_s = time.monotonic() - began
            if response.status_code != 200:
                error = f"status {response.status_code}: {_message(await response.aread())}"
            elif stream:
                model, error, call = await _read_stream(response)
            else:
                body = json.loads(await response.aread())
                first_s, model = time.monotonic() - began, body["model"]
                if body["choices"][0]["finish_reason"] is None:
                    error = "an answer without an end"
                call = _call(body["choices"][0]["message"].get("tool_calls"))
        return Answer(customer.name, stream, first_s, served_by, model, degraded, error, call)


async def _read_stream(response: httpx2.Response) -> tuple[str, str | None, str | None]:
    """The model that answered, what was wrong with the stream, if anything, and the tool call in it."""
    model, finish, pieces = "unknown", None, list[dict[str, Any]]()
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        frame: dict[str, Any] = json.loads(data)
        if "error" in frame:
            return model, f"the stream broke: {frame['error'].get('message', frame['error'])}", None
        model = frame.get("model", model)
        for choice in frame.get("choices", ()):
            finish = choice.get("finish_reason") or finish
            pieces += choice["delta"].get("tool_calls") or ()
    return model, None if finish else "the stream ended short", _call(pieces)


def _call(pieces: list[dict[str, Any]] | None) -> str | None:
    """The tool call that these are, or are pieces of; None where there is none."""
    functions = [piece["function"] for piece in pieces or () if piece.get("function")]
    if not functions:
        return None
    name, arguments = ("".join(function.get(key) or "" for function in functions) for key in ("name", "arguments"))
    return shown(name, arguments)


def _message(body: bytes) -> str:
    """The message of an error in OpenAI's envelope, or the start of whatever came instead of one."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
