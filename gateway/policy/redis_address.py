"""Where a store is: the URLs that ``--redis`` takes, read and checked before anything is connected.

======================================================  =================================================
``redis://[USER:PASSWORD@]HOST[:6379][/DB]``            one server
``unix://[USER:PASSWORD@]/PATH[?db=DB]``                one server on this machine
``redis+sentinel://[…@]HOST[:26379],…/SERVICE[/DB]``    the primary that Sentinel names for SERVICE
``redis+cluster://[…@]HOST[:6379],…``                   the node of a cluster that has our slot
======================================================  =================================================

``rediss`` in place of ``redis`` is TLS. The server's certificate is always verified against its name: options that
would verify less are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["server", "socket", "sentinel", "cluster"]
HostPort = tuple[str, int]

REDIS_PORT = 6379
SENTINEL_PORT = 26379

FORMS = "redis://HOST:PORT, rediss://HOST:PORT, unix:///PATH, redis+sentinel://HOST,…/SERVICE or redis+cluster://HOST,…"

_SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One such URL, read. ``hosts``: where to ask, at least one, or none with a ``path``.

    ``tls``: None, or files: ``ssl_ca_certs`` or ``ssl_ca_path`` (whom to trust; else what the system does),
    ``ssl_certfile`` and ``ssl_keyfile`` (who we are).
    """

    kind: Kind
    hosts: tuple[HostPort, ...]
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] | None = None
    shown: str = ""
    """The URL without credentials and options, for people."""


def read_address(url: str) -> RedisAddress:
    """``url`` as an address. Raises ValueError, in words that repeat no credentials, when it is not one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"a store's URL is {FORMS}") from None
    found = _SCHEMES.get(parts.scheme)
    if found is None:
        raise ValueError(f"a store's URL is {FORMS}")
    kind, tls = found
    if parts.fragment:
        raise ValueError("a store's URL has no #fragment: write %23 for a # in a password")
    credentials, _, places = parts.netloc.rpartition("@")
    username, password = _credentials(credentials)
    options = _options(parts.query, kind, tls=tls)
    username, password = options.pop("username", username), options.pop("password", password)
    path = unquote(parts.path)
    if kind == "socket":
        if places or not path.strip("/"):
            raise ValueError(f"a store's URL is {FORMS}; a path begins with a third slash")
        hosts: tuple[HostPort, ...] = ()
        service, db_text, shown = "", options.pop("db", "0"), f"unix://{path}"
    else:
        hosts = tuple(_host(one, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for one in places.split(","))
        service, db_text = _path(path, kind)
        db_text = options.pop("db", db_text)
        if kind == "server" and len(hosts) > 1:
            raise ValueError("redis:// names one server: several are redis+sentinel:// or redis+cluster://")
        shown = f"{parts.scheme}://{places}{parts.path.rstrip('/')}"
    if not db_text.isdecimal():
        raise ValueError("the database in a store's URL is a number, such as /0")
    if kind == "cluster" and int(db_text):
        raise ValueError("a Redis Cluster has database 0 only")
    sentinel_username, sentinel_password = (
        options.pop("sentinel_username", None),
        options.pop("sentinel_password", None),
    )
    return RedisAddress(
        kind,
        hosts,
        path if kind == "socket" else "",
        service,
        int(db_text),
        username,
        password,
        sentinel_username,
        sentinel_password,
        options if tls else None,
        shown,
    )


def address_of(url: str) -> str:
    """A store's URL without user and password. Raises ValueError when it is not one."""
    return read_address(url).shown


def _credentials(text: str) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    return unquote(user) or None, unquote(password) if colon else None


def _host(text: str, default_port: int) -> HostPort:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path or port == 0:
        raise ValueError(f"a store's URL is {FORMS}; one of its hosts is not HOST or HOST:PORT")
    return host, port or default_port


def _path(path: str, kind: Kind) -> tuple[str, str]:
    """Service and database."""
    first, *more = path.strip("/").split("/")
    if kind != "sentinel":
        if more:
            raise ValueError("after its host a store's URL may have the number of a database, and nothing else")
        return "", first or "0"
    if not first or len(more) > 1:
        raise ValueError("a Sentinel's URL is redis+sentinel://HOST,…/SERVICE or …/SERVICE/DB")
    return first, more[0] if more else "0"


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    known = {"db", "username", "password"} | (_TLS_OPTIONS if tls else set())
    if kind == "sentinel":
        known |= _SENTINEL_OPTIONS
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name in known:
            continue
        if name in ("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"):
            raise ValueError(f"{name} is refused: the store's certificate is always verified, and TLS as new as can be")
        if name in _TLS_OPTIONS:
            raise ValueError(f"{name} goes with rediss://, which is TLS")
        raise ValueError(f"a store's URL has no option {name[:50]}; known here: {', '.join(sorted(known))}")
    return found
