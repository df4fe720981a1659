"""TLS is verified, never downgraded, and a handshake that hangs is a time-out."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from gateway.errors import ConnectTimeout, TLSError
from gateway.upstream.tls import verified_context
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import HEAD, OK, answering, until_true


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def trusting(ca_file: Path) -> ssl.SSLContext:
    return verified_context(ca_file)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    certificate.configure_cert(context)
    return context


async def test_a_certificate_that_verifies_is_talked_to_and_the_connection_is_reused(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = await serve(answering(OK), tls=server_context(authority.issue_cert("127.0.0.1")))
    pool = pool_to(server, tls=trusting)
    for _ in range(3):
        assert await (await pool.exchange(HEAD, b"{}", soon())).read_all(10) == b"ok"
    assert server.connections == 1


async def test_a_stream_over_tls_stalls_with_its_reader_and_arrives_whole(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    size = 3_000_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, b"x" * size)
    server = await serve(answering(answer), tls=server_context(authority.issue_cert("127.0.0.1")))
    exchange = await pool_to(server, tls=trusting).exchange(HEAD, b"", soon())
    await asyncio.sleep(0.05)
    assert exchange._size < 1_500_000
    assert len(await exchange.read_all(size)) == size


@pytest.mark.parametrize("wrong", ["expired", "another host", "unknown authority", "self-signed", "not TLS at all"])
async def test_a_peer_that_does_not_verify_gets_no_request(
    serve: Serve,
    pool_to: MakePool,
    soon: Callable[[], float],
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    wrong: str,
) -> None:
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(100))

    certificate = {
        "expired": lambda: authority.issue_cert("127.0.0.1", not_after=dt.datetime.now(dt.UTC) - dt.timedelta(days=1)),
        "another host": lambda: authority.issue_cert("api.example.com"),
        "unknown authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }
    tls: ssl.SSLContext | None = None
    if wrong == "self-signed":
        lone = trustme.CA()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with lone.cert_pem.tempfile() as certificate_file, lone.private_key_pem.tempfile() as key_file:
            tls.load_cert_chain(certificate_file, key_file)
    elif wrong != "not TLS at all":
        tls = server_context(certificate[wrong]())
    server = await serve(handle, tls=tls)
    pool = pool_to(f"https://127.0.0.1:{server.port}", tls=trusting)
    with pytest.raises(TLSError) as caught:
        await pool.exchange(HEAD, b"secret", soon())
    assert not caught.value.reached
    assert pool.open == 0
    await until_true(lambda: server.open == 0)
    assert not any(b"HTTP/1.1" in request for request in requests)


async def test_a_handshake_that_hangs_is_a_connect_time_out_and_its_socket_is_closed(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], trusting: ssl.SSLContext
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    server = await serve(handle)
    pool = pool_to(f"https://127.0.0.1:{server.port}", tls=trusting, connect_timeout_s=0.1)
    with pytest.raises(ConnectTimeout):
        await pool.exchange(HEAD, b"", soon())
    assert pool.open == 0
    await until_true(lambda: server.connections == 1 and server.open == 0)


async def test_a_context_that_does_not_verify_is_refused(pool_to: MakePool) -> None:
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="does not verify"):
        pool_to("https://127.0.0.1:1", tls=careless)


def test_the_default_context_verifies_and_is_made_once() -> None:
    context = verified_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context is verified_context()
