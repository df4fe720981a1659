"""How an answer says where it came from: response headers, and the `degraded` object in the body.

Both so, as many agents never see headers. The object is spliced in behind the first brace, so that nothing that the
upstream wrote is parsed and written anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gateway.errors import Reason

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Mark:
    """That an answer is degraded, and how."""

    reason: Reason
    requested_model: str
    served_model: str
    served_by: str

    @property
    def fields(self) -> dict[str, str]:
        """The `degraded` object."""
        return {
            "reason": self.reason.value,
            "requested_model": self.requested_model,
            "served_model": self.served_model,
            "served_by": self.served_by,
        }

    def splice(self, answer: bytes) -> bytes:
        """``answer``, a JSON object or SSE events whose first holds one, with the `degraded` object in front."""
        brace = answer.index(b"{") + 1
        rest = answer[brace:]
        comma = b"" if rest.lstrip().startswith(b"}") else b","
        return answer[:brace] + b'"degraded":' + msgspec.json.encode(self.fields) + comma + rest


def answer_headers(*, request_id: str, served_by: str, attempts: int, policy: str, mark: Mark | None = None) -> Headers:
    """The headers that every answer carries, and the two of a degraded one."""
    headers = [
        (b"x-request-id", request_id.encode("latin-1")),
        (b"x-failsoft-served-by", served_by.encode("latin-1")),
        (b"x-failsoft-attempts", b"%d" % attempts),
        (b"x-failsoft-policy", policy.encode("latin-1")),
    ]
    if mark is not None:
        headers.append((b"x-failsoft-degraded", mark.reason.value.encode()))
        headers.append((b"x-failsoft-model", header_safe(mark.served_model)))
    return headers


def header_safe(text: str) -> bytes:
    """``text`` as a header value: a provider may name its model in any characters it likes."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode("ascii")
