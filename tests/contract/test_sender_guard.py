"""No request goes where it must not: hostile addresses, over real sockets, for every sender."""

import socket

import pytest

from services.dispatcher.dial import AddressRefused, Dialler, address_info
from services.dispatcher.guard import address_refusal
from services.dispatcher.resolve import Names
from services.dispatcher.sender import Failure, Request
from tests import endpoints
from tests.endpoints import endpoint

METADATA = "169.254.169.254"


def request(url):
    return Request(url=url, headers=(("Content-Type", "application/json"),), body=b"{}", timeout_ms=3_000)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1.",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "①②⑦.⓪.⓪.①",
            METADATA,
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
        ],
    )
    async def test_no_form_of_an_inner_address_is_dialled(self, make_sender, host):
        sender = make_sender(allow_private=False)
        async with endpoint() as there, endpoint(host="::1", port=there.port) as there_6:
            failure = await sender.send(request(f"http://{host}:{there.port}/"))
        assert isinstance(failure, Failure)
        # Not every machine's resolver knows every form.
        assert failure.code in {"address_refused", "url_refused", "dns_failed"}
        assert (there.connections, there_6.connections) == (0, 0)

    @pytest.mark.parametrize(
        "url", ["http://evil.example@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@evil.example/"]
    )
    async def test_no_trick_with_user_names_gets_around_it(self, sender, url):
        async with endpoint() as there:
            failure = await sender.send(request(url.format(port=there.port)))
        assert (failure.code, there.connections) == ("url_refused", 0)

    @pytest.mark.parametrize(
        "url", ["ftp://127.0.0.1/", "file:///etc/passwd", "//127.0.0.1/", "http:///", "http://", "", "x"]
    )
    async def test_what_is_no_http_url_is_refused(self, sender, url):
        assert (await sender.send(request(url))).code == "url_refused"

    async def test_the_reason_names_the_address(self, make_sender):
        failure = await make_sender(allow_private=False).send(request("http://127.0.0.1:1/"))
        assert (failure.code, failure.detail) == (
            "address_refused",
            "the host leads to 127.0.0.1, a loopback address: use one with a public address",
        )


class TestNames:
    async def test_a_name_that_leads_inside_is_refused(self, make_sender):
        sender = make_sender(allow_private=False, names=Names(lambda host: ["127.0.0.1"]))
        async with endpoint() as there:
            failure = await sender.send(request(f"http://hooks.example:{there.port}/"))
        assert (failure.code, there.connections) == ("address_refused", 0)

    async def test_metadata_is_refused_even_where_private_addresses_are_allowed(self, make_sender):
        sender = make_sender(allow_private=True, names=Names(lambda host: [METADATA]))
        failure = await sender.send(request("http://hooks.example/latest/meta-data/"))
        assert (failure.code, METADATA in failure.detail) == ("address_refused", True)

    async def test_of_several_addresses_only_the_allowed_are_dialled(self, make_sender):
        sender = make_sender(names=Names(lambda host: [METADATA, "127.0.0.1", "::ffff:169.254.169.254"]))
        async with endpoint() as there:
            answer = await sender.send(request(f"http://hooks.example:{there.port}/"))
        assert answer.status == 200

    async def test_a_name_that_leads_elsewhere_the_second_time_is_checked_again(self, make_sender):
        looked_up = []

        def rebind(host):
            looked_up.append(host)
            return ["127.0.0.1"] if len(looked_up) == 1 else [METADATA]

        sender = make_sender(names=Names(rebind))
        async with endpoint(
            endpoints.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        ) as there:
            first = await sender.send(request(f"http://hooks.example:{there.port}/"))
            # One look-up a connection, whose addresses are checked and dialled: no second one to lead elsewhere.
            assert len(looked_up) == 1
            second = await sender.send(request(f"http://hooks.example:{there.port}/"))
        assert (first.status, second.code, there.connections) == (200, "address_refused", 1)


class TestWaysAround:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirects_are_not_followed(self, sender, status):
        async with endpoint() as inner, endpoint(endpoints.redirect(inner.url, status)) as there:
            answer = await sender.send(request(there.url))
        assert (answer.status, dict(answer.headers)["Location"], inner.connections) == (status, inner.url, 0)

    async def test_proxies_of_the_environment_are_not_asked(self, make_sender, monkeypatch):
        async with endpoint() as proxy, endpoint() as there:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.lower(), proxy.url)
            answer = await make_sender().send(request(there.url))
        assert (answer.status, there.connections, proxy.connections) == (200, 1, 0)

    async def test_credentials_of_the_machines_user_are_not_sent(self, make_sender, monkeypatch, tmp_path):
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with endpoint() as there:
            await make_sender().send(request(there.url))
        assert there.received[0].header("Authorization") is None


class TestDialler:
    """Below the rules for URLs, so that a hole in those is none here."""

    @pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "127.0.0.1", "::1"])
    async def test_what_the_system_makes_of_a_host_is_checked(self, host):
        dialler = Dialler(allow_private=False)
        with pytest.raises(AddressRefused):
            await dialler.addresses(host)

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1", METADATA, "64:ff9b::a00:1"])
    def test_no_socket_is_opened_for_a_refused_address(self, address):
        with pytest.raises(AddressRefused):
            Dialler(allow_private=False).open_socket(address_info(address, 80))

    @pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")
    async def test_a_mapped_address_is_the_ipv4_address_it_dials(self):
        """Why the guard unwraps it: the kernel does."""
        async with endpoint() as there:
            with socket.socket(socket.AF_INET6) as probe:
                probe.setblocking(False)
                probe.connect_ex(("::ffff:127.0.0.1", there.port))
                await there.accepted(1)
        assert (there.connections, address_refusal("::ffff:127.0.0.1", False)) == (1, "a loopback address")
