"""The URLs of a store: every form that is taken, and what is refused before anything is connected."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.redis_address import address_of, read_address


@pytest.mark.parametrize(
    ("url", "kind", "hosts"),
    [
        ("redis://store", "server", (("store", 6379),)),
        ("rediss://store:6380/3", "server", (("store", 6380),)),
        ("redis://[::1]:7000", "server", (("::1", 7000),)),
        ("unix:///run/redis.sock", "socket", ()),
        ("redis+sentinel://a,b:26380,c/main", "sentinel", (("a", 26379), ("b", 26380), ("c", 26379))),
        ("rediss+sentinel://[fd00::1],b/main/2", "sentinel", (("fd00::1", 26379), ("b", 26379))),
        ("redis+cluster://a:7001,b", "cluster", (("a", 7001), ("b", 6379))),
    ],
)
def test_each_form_names_its_hosts(url: str, kind: str, hosts: tuple[tuple[str, int], ...]) -> None:
    address = read_address(url)
    assert (address.kind, address.hosts) == (kind, hosts)
    assert (address.tls is not None) == url.startswith("rediss")
    assert address.shown == url


def test_service_and_database_of_a_sentinels_url() -> None:
    address = read_address("redis+sentinel://u:p@a,b/main/2?sentinel_username=s&sentinel_password=t")
    assert (address.service, address.db) == ("main", 2)
    assert (address.username, address.password) == ("u", "p")
    assert (address.sentinel_username, address.sentinel_password) == ("s", "t")


def test_the_database_and_credentials_of_a_socket_are_options() -> None:
    address = read_address("unix:///run/redis.sock?db=3&username=u&password=p%23")
    assert (address.path, address.db, address.username, address.password) == ("/run/redis.sock", 3, "u", "p#")


def test_files_of_tls_are_options() -> None:
    address = read_address("rediss://store?ssl_ca_certs=/etc/ca.pem")
    assert address.tls == {"ssl_ca_certs": "/etc/ca.pem"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://store", "redis://HOST:PORT"),
        ("store:6379", "redis://HOST:PORT"),
        ("redis://", "not HOST or HOST:PORT"),
        ("redis://store:port", "not HOST or HOST:PORT"),
        ("redis://a,b", "names one server"),
        ("redis://store/zero", "is a number"),
        ("redis://store/0/1", "the number of a database, and nothing else"),
        ("redis://store#x", "%23"),
        ("unix://", "third slash"),
        ("unix://run/redis.sock", "third slash"),
        ("redis+sentinel://a,b", "SERVICE"),
        ("redis+sentinel://a,/main", "not HOST or HOST:PORT"),
        ("redis+sentinel://a/main/1/2", "SERVICE"),
        ("redis+cluster://a/1", "database 0 only"),
        ("redis://store?db=-1", "is a number"),
        ("redis://store?socket_timeout=1", "has no option socket_timeout; known here: db, password, username"),
        ("redis://store?ssl_ca_certs=/ca.pem", "goes with rediss://"),
        ("redis://store?sentinel_password=x", "has no option"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("+", r"\+")):
        read_address(url)


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_min_version=769"])
@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel", "rediss+cluster"])
def test_nothing_in_a_url_makes_tls_verify_less(scheme: str, option: str) -> None:
    with pytest.raises(ValueError, match="always verified"):
        read_address(f"{scheme}://store/main?{option}" if "sentinel" in scheme else f"{scheme}://store?{option}")


SECRET = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)
@given(user=SECRET, password=SECRET, form=st.sampled_from(["redis://{}store/1", "redis+sentinel://{}a,b/main"]))
def test_credentials_are_read_and_never_shown(user: str, password: str, form: str) -> None:
    url = form.format(f"{quote(user, safe='')}:{quote(password, safe='')}@")
    address = read_address(url)
    assert (address.username, address.password) == (user, password)
    assert address.shown == address_of(url) == form.format("")
    assert "username" not in repr(address)
