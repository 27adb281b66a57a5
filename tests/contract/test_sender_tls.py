"""Certificates are always verified, for every sender."""

import asyncio
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.dispatcher.resolve import Names
from services.dispatcher.sender import Request, Withheld
from tests import endpoints
from tests.endpoints import authority, client_context, endpoint, server_context

HOST = "hooks.example"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def request(url, timeout_ms=3_000):
    return Request(url=url, headers=(("Content-Type", "application/json"),), body=b"{}", timeout_ms=timeout_ms)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def ca():
    return authority()


@pytest.fixture
async def tls_sender(make_sender, ca):
    """Trusts our authority; every name leads to this machine."""
    return make_sender(ssl_context=client_context(ca), names=Names(lambda host: ["127.0.0.1"]))


async def failure_with(sender, certificate, host=HOST):
    """What a sender makes of an endpoint with this certificate."""
    async with endpoint(tls=server_context(certificate)) as there:
        failure = await sender.send(request(f"https://{host}:{there.port}/"))
    assert there.received == []
    return failure


async def test_a_valid_certificate_is_accepted_and_the_connection_used_again(tls_sender, ca):
    async with endpoint(tls=server_context(ca.issue_cert(HOST))) as there:
        answers = [await tls_sender.send(request(f"https://{HOST}:{there.port}/x")) for _ in range(2)]
    assert ([each.status for each in answers], there.connections) == ([200, 200], 1)
    assert min(answers[0].connect_us, answers[0].tls_us) > 0
    assert (answers[1].connect_us, answers[1].tls_us) == (None, None)


async def test_a_handshake_s_time_is_not_counted_as_connecting(tls_sender):
    """The system takes the connection; nobody there answers the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        given_up = await tls_sender.send(request(f"https://{HOST}:{deaf.getsockname()[1]}/", timeout_ms=1_000))
    assert (given_up.code, given_up.tls_us) == ("timeout", None)
    assert 0 < given_up.connect_us < 800_000


async def test_a_connection_that_was_idle_for_a_while_is_used_again(tls_sender, ca):
    async with endpoint(tls=server_context(ca.issue_cert(HOST))) as there:
        for _ in range(3):
            answer = await tls_sender.send(request(f"https://{HOST}:{there.port}/x"))
            await asyncio.sleep(0.08)
    assert (answer.status, there.connections) == (200, 1)


async def test_a_handshake_that_fails_or_is_given_up_leaves_no_socket_open(tls_sender):
    async with endpoint() as there:
        await tls_sender.send(request(f"https://{HOST}:{there.port}/", timeout_ms=30))
        before = open_files()
        for _ in range(5):
            await tls_sender.send(request(f"https://{HOST}:{there.port}/", timeout_ms=30))
        waiting = asyncio.create_task(tls_sender.send(request(f"https://{HOST}:{there.port}/")))
        await asyncio.sleep(0.03)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(3):
            while there.peers or open_files() > before:  # noqa: ASYNC110  # what is waited for tells nobody
                await asyncio.sleep(0.005)


async def test_a_certificate_for_an_address_is_accepted(tls_sender, ca):
    async with endpoint(tls=server_context(ca.issue_cert("127.0.0.1"))) as there:
        assert (await tls_sender.send(request(there.url))).status == 200


async def test_the_dot_at_the_end_of_a_full_name_does_not_matter(tls_sender, ca):
    async with endpoint(tls=server_context(ca.issue_cert(HOST))) as there:
        assert (await tls_sender.send(request(f"https://{HOST}.:{there.port}/"))).status == 200


async def test_a_certificate_of_another_host_is_refused(tls_sender, ca):
    failure = await failure_with(tls_sender, ca.issue_cert("other.example"))
    assert (failure.code, failure.status, "certificate" in failure.detail) == ("tls_failed", None, True)


async def test_an_expired_certificate_is_refused(tls_sender, ca):
    failure = await failure_with(tls_sender, ca.issue_cert(HOST, not_after=YESTERDAY))
    assert (failure.code, "expired" in failure.detail) == ("tls_failed", True)


async def test_a_certificate_of_an_unknown_authority_is_refused(tls_sender):
    assert (await failure_with(tls_sender, authority().issue_cert(HOST))).code == "tls_failed"


async def test_a_certificate_that_vouches_for_itself_is_refused(make_sender, ca):
    """With the senders' own trust, that of the system."""
    sender = make_sender(names=Names(lambda host: ["127.0.0.1"]))
    assert (await failure_with(sender, ca.issue_cert(HOST))).code == "tls_failed"


async def test_an_old_version_of_tls_is_refused(tls_sender, ca):
    context = server_context(ca.issue_cert(HOST))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with endpoint(tls=context) as there:
        failure = await tls_sender.send(request(f"https://{HOST}:{there.port}/"))
    assert failure.code in {"tls_failed", "reset"}
    assert there.received == []


async def test_an_endpoint_without_tls_gets_no_request(tls_sender):
    got = []

    async def answer_in_plain(reader, writer):
        got.append(await reader.read(65_536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer_in_plain, "127.0.0.1", 0)
    async with server:
        failure = await tls_sender.send(request(f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"))
    assert (failure.code, len(got), b"POST" in got[0]) == ("tls_failed", 1, False)


async def test_a_handshake_that_never_ends_runs_into_the_timeout(tls_sender):
    async with endpoint() as there:  # waits for a request in plain HTTP
        started = time.monotonic()
        failure = await tls_sender.send(request(f"https://{HOST}:{there.port}/", timeout_ms=200))
        took = time.monotonic() - started
    assert failure.code in {"timeout", "tls_failed"}
    assert took < 1


async def test_a_reset_in_the_handshake_is_a_failure_like_another(tls_sender):
    async def slam(reader, writer):
        writer.transport.abort()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    async with server:
        failure = await tls_sender.send(request(f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"))
    assert failure.code in {"reset", "tls_failed"}


async def test_no_byte_of_a_request_goes_out_that_is_another_s_when_its_handshake_is_over(tls_sender, ca):
    """The handshake hangs until the group has given the partition to somebody else."""
    is_met, may_agree, is_member, certificate = threading.Event(), threading.Event(), True, ca.issue_cert(HOST)

    def agree_late():
        """What comes on each of two connections."""
        for _ in range(2):
            accepted, _ = listening.accept()
            accepted.settimeout(5)
            is_met.set()
            may_agree.wait(5)
            try:
                with server_context(certificate).wrap_socket(accepted, server_side=True) as secured:
                    yield secured.recv(65_536)
            except OSError:  # it is closed before the last message of the handshake is out
                yield b""

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        url = f"https://{HOST}:{listening.getsockname()[1]}/"
        agreeing = asyncio.create_task(asyncio.to_thread(lambda: list(agree_late())))
        sending = asyncio.create_task(tls_sender.send(request(url), lambda: is_member))
        assert await asyncio.to_thread(is_met.wait, 5)
        is_member = False
        may_agree.set()
        with pytest.raises(Withheld):
            await sending
        is_member = True
        await tls_sender.send(request(url), lambda: is_member)
        withheld, sent = await agreeing
    assert (withheld, sent[:7]) == (b"", b"POST / ")


@pytest.mark.parametrize("behaviour", [endpoints.flood(1_000_000_000), endpoints.hang(), endpoints.reset()])
async def test_limits_hold_behind_tls_too(tls_sender, ca, behaviour):
    async with endpoint(behaviour, tls=server_context(ca.issue_cert(HOST))) as there:
        happened = await tls_sender.send(request(f"https://{HOST}:{there.port}/", timeout_ms=500))
        async with asyncio.timeout(3):
            while there.peers:  # noqa: ASYNC110  # what is waited for tells nobody
                await asyncio.sleep(0.005)
    assert len(happened.body) <= 16_384
