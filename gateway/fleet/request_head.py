"""The request line and headers of whatever a box is asked: by clients' attempts, probes and readings alike."""

from __future__ import annotations

from gateway.upstream.origin import Origin


def request_head(method: str, origin: Origin, path: str, *, api_key: str | None, header: bytes | None = None) -> bytes:
    """Each line with its end; no length and no blank line, as :meth:`gateway.upstream.pool.Pool.exchange` takes it.

    ``path`` begins with a slash; ``header``: one more line, such as the content's type; ``api_key``: the box's own.
    """
    lines = [f"{method} {origin.base_path}{path} HTTP/1.1".encode("ascii"), b"host: " + origin.host_header]
    if header is not None:
        lines.append(header)
    lines.append(b"accept-encoding: identity")
    if api_key is not None:
        lines.append(b"authorization: Bearer " + api_key.encode("ascii"))
    return b"".join(line + b"\r\n" for line in lines)
