from __future__ import annotations

import pytest

from gateway.upstream.origin import Origin


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "base_path", "host_header"),
    [
        ("http://10.0.0.11:8000", "http", "10.0.0.11", 8000, "", b"10.0.0.11:8000"),
        ("http://box/", "http", "box", 80, "", b"box"),
        ("https://api.example.com/v1/", "https", "api.example.com", 443, "/v1", b"api.example.com"),
        ("https://api.example.com:8443/a/b", "https", "api.example.com", 8443, "/a/b", b"api.example.com:8443"),
        ("http://[::1]:8000", "http", "::1", 8000, "", b"[::1]:8000"),
        ("HTTP://Box:80", "http", "box", 80, "", b"box"),
    ],
)
def test_a_url_gives_its_parts(url: str, scheme: str, host: str, port: int, base_path: str, host_header: bytes) -> None:
    origin = Origin.parse(url)
    assert (origin.scheme, origin.host, origin.port, origin.base_path) == (scheme, host, port, base_path)
    assert origin.host_header == host_header
    assert Origin.parse(str(origin)) == origin


@pytest.mark.parametrize("url", ["unix:/run/worker.sock", "unix:///run/worker.sock"])
def test_a_unix_url_names_a_socket(url: str) -> None:
    origin = Origin.parse(url)
    assert (origin.scheme, origin.uds, origin.host_header, origin.base_path) == (
        "unix", "/run/worker.sock", b"localhost", "",
    )  # fmt: skip
    assert str(origin) == "unix:/run/worker.sock"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "http://"),
        ("box:8000", "http://"),
        ("ftp://box", "http://"),
        ("http://", "host name"),
        ("http://:8000", "host name"),
        ("http://bo x", "host name"),
        ("http://bücher.example", "host name"),
        ("http://box:0", "port 0"),
        ("http://box:http", "not a URL"),
        ("http://box:99999", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://box?x=1", "query"),
        ("http://box/#top", "query or a fragment"),
        ("http://box/a b", "request line"),
        ("unix:worker.sock", "absolute path"),
        ("unix:", "absolute path"),
    ],
)
def test_a_bad_url_says_what_is_wrong_with_it(url: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Origin.parse(url)


def test_a_url_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Origin.parse("https://me:hunter2@api.example.com/v1")
    assert "hunter2" not in str(caught.value)
