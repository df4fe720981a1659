"""A recorded trace: one JSON object a line, ``{"at": 1.25, "customer", "model", "prompt_tokens", "output_tokens",
"stream"}``, ``at`` in seconds from its start. Keys beyond these are passed over: a recorder may know more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from backend.traffic.arrival import Arrival
from backend.traffic.read import TrafficError
from gateway.policy.diagnostics import Diagnostic

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class _Line(msgspec.Struct):
    at: Annotated[float, msgspec.Meta(ge=0)]
    customer: Annotated[str, msgspec.Meta(min_length=1)]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    prompt_tokens: _Tokens
    output_tokens: _Tokens
    stream: bool = True


def read_trace(path: Path) -> list[Arrival]:
    """All of a trace, in order of time. Raises TrafficError, which names the first line that is not one."""
    try:
        with path.open("rb") as lines:
            arrivals = list(arrivals_from(lines, str(path)))
    except OSError as error:
        raise TrafficError(Diagnostic(str(path), 0, 0, "", f"cannot be read: {error.strerror or error}")) from None
    if not arrivals:
        raise TrafficError(Diagnostic(str(path), 0, 0, "", "holds no request"))
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def arrivals_from(lines: Iterable[bytes], name: str) -> Iterator[Arrival]:
    """What the lines of a trace say; empty ones are passed over. Raises TrafficError."""
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise TrafficError(Diagnostic(name, number, 1, "", f"is not a request of a trace: {error}")) from None
        yield Arrival(read.at, read.customer, read.model, read.prompt_tokens, read.output_tokens, read.stream)


def trace_lines(arrivals: Iterable[Arrival]) -> Iterator[bytes]:
    """The same the other way, each with its line's end. Times are kept to a microsecond."""
    for one in arrivals:
        line = _Line(round(one.at_s, 6), one.customer, one.model, one.prompt_tokens, one.output_tokens, one.streamed)
        yield msgspec.json.encode(line) + b"\n"


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Write a trace. Raises OSError."""
    with path.open("wb") as opened:
        opened.writelines(trace_lines(arrivals))
