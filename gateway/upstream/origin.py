"""Where an upstream lives: scheme, host, port or Unix socket, and the path that its API hangs under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._~-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """One upstream server. Build it with :meth:`parse`.

    ``uds`` is the path of a Unix socket, and then ``host`` is ``localhost`` and ``port`` 0. ``base_path`` has no
    trailing slash, so that ``base_path + "/v1/models"`` is a request target.
    """

    scheme: Literal["http", "https", "unix"]
    host: str
    port: int
    uds: str | None = None
    base_path: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``http://host:port/base``, ``https://…`` or ``unix:/path/of/socket``.

        :raises ValueError: with a sentence that says what is wrong with the URL. It repeats no user name or password.
        """
        if url.startswith("unix:"):
            return cls._parse_unix(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"not a URL: {error}") from None
        if "@" in parts.netloc:
            raise ValueError("a URL must not carry a user name or a password: give the key as api_key")
        scheme: Literal["http", "https"]
        if parts.scheme == "http":
            scheme = "http"
        elif parts.scheme == "https":
            scheme = "https"
        else:
            raise ValueError(f"{url!r} must begin with http://, https:// or unix:/")
        host = parts.hostname or ""
        if not _HOST.fullmatch(host):
            raise ValueError(f"{url!r} has no valid host name")
        if port == 0:
            raise ValueError(f"{url!r} has port 0, which nobody listens on")
        return cls(scheme, host, port or _DEFAULT_PORTS[scheme], None, _base_path(url, parts))

    @classmethod
    def _parse_unix(cls, url: str) -> Self:
        path = url.removeprefix("unix:")
        if path.startswith("//"):
            path = path[2:]
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{url!r} must name a socket by its absolute path, as in unix:/run/worker.sock")
        return cls("unix", "localhost", 0, path)

    @property
    def host_header(self) -> bytes:
        """The value of the ``host`` header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.uds is not None or self.port == _DEFAULT_PORTS[self.scheme]:
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")

    def __str__(self) -> str:
        if self.uds is not None:
            return f"unix:{self.uds}"
        return f"{self.scheme}://{self.host_header.decode('ascii')}{self.base_path}"


def _base_path(url: str, parts: SplitResult) -> str:
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError(f"{url!r} must not have a query or a fragment")
    if not _PATH.fullmatch(parts.path):
        raise ValueError(f"the path of {url!r} has characters that a request line cannot carry")
    return parts.path.rstrip("/")
