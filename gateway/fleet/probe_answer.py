"""What comes back from a probe, read as far as its first content: pure, bytes in.

A probe asks for one token, so a few hundred bytes are the answer; the data plane's guard, which reads answers whole,
is a floor above.
"""

from __future__ import annotations

import json

from gateway.errors import Aborted, ErrorFrame, ProtocolError, TooLarge

LIMIT_BYTES = 64 * 1024


class ProbeAnswer:
    """Feed it the body of a streamed chat completion until it says that the box is at work."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> bool:
        """Whether a token, or an orderly finish, has come.

        :raises ErrorFrame: the box said that it failed. :raises Aborted: it gave up on the probe.
        :raises ProtocolError: this is no stream of chat completions.
        """
        self._data += data
        if len(self._data) > LIMIT_BYTES:
            raise TooLarge(f"a probe's answer of more than {LIMIT_BYTES} bytes")
        *frames, rest = bytes(self._data).replace(b"\r\n", b"\n").split(b"\n\n")
        self._data = bytearray(rest)
        alive = False
        for frame in frames:
            # All of them: an error right behind a token is no sign of health.
            alive |= _says_life(frame)
        return alive


def _says_life(frame: bytes) -> bool:
    data = b"\n".join(line[5:].strip() for line in frame.split(b"\n") if line.startswith(b"data:"))
    if not data or data == b"[DONE]":
        return False
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("the probe's answer has a frame that is not JSON") from None
    if not isinstance(chunk, dict):
        raise ProtocolError("the probe's answer has a frame that is not an object")
    error = chunk.get("error")
    if error is not None:
        detail = error if isinstance(error, dict) else {"message": str(error)}
        code = detail.get("code")
        raise ErrorFrame(str(detail.get("message", "")), status=code if isinstance(code, int) else None)
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        raise ProtocolError("the probe's answer has a frame without choices")
    return any(isinstance(choice, dict) and _has_content(choice) for choice in choices)


def _has_content(choice: dict[str, object]) -> bool:
    finish = choice.get("finish_reason")
    if finish == "abort":
        raise Aborted("the box gave up on the probe")
    delta = choice.get("delta")
    said = isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role")
    return said or finish is not None
