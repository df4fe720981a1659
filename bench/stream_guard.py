"""What checking one event of a stream costs, beside what else could have been done: `python -m bench.stream_guard`.

Prints CPU µs an event for the guard, for a full `json.loads`, for msgspec's untyped decoder, and for a bare split.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import msgspec

from gateway.dataplane.stream_guard import StreamGuard

EVENT = (
    b'data: {"id":"chatcmpl-1234567890abcdef","object":"chat.completion.chunk","created":1790000000,'
    b'"model":"customer_acme_v3","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null,"token_ids":null}]}\n\n'
)
EVENTS = 100_000


def measure(feed: Callable[[bytes], object]) -> float:
    began = time.process_time()
    for _ in range(EVENTS):
        feed(EVENT)
    return (time.process_time() - began) / EVENTS * 1e6


def main() -> None:
    untyped = msgspec.json.Decoder().decode
    costs = {
        "split only": measure(lambda data: data.split(b"\n\n")),
        "the guard": measure(StreamGuard().feed),
        "msgspec, untyped": measure(lambda data: untyped(data[6:])),
        "json.loads": measure(lambda data: json.loads(data[6:])),
    }
    for name, cost in costs.items():
        print(f"{name:18} {cost:6.2f} µs an event")


if __name__ == "__main__":
    main()
