"""The address in the audit log: what nobody can claim for himself."""

from ipaddress import ip_network

import pytest

from services.admin.client_ip import client_ip
from services.cli.settings import all_settings
from services.runtime.process import load_settings
from services.runtime.serving import StartupError
from services.runtime.settings import Settings

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "header", "found"),
    [
        # Nobody vouches for what a stranger says.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("203.0.113.9", None, "203.0.113.9"),
        # One proxy, two, and a client that writes a header of its own.
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 192.0.2.7,10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 203.0.113.9", "203.0.113.9"),
        # All of them are ours: the first.
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        # What is no address has nobody behind it to vouch for the rest.
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "<script>, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9,", "10.0.0.1"),
        ("10.0.0.1", "10.0.0", "10.0.0.1"),
        # Forms that proxies write.
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", '"2001:DB8:0::7"', "2001:db8::7"),
        ("fd00::1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "203.0.113.9", "fe80::1"),
        # No address at all: a Unix socket, or a peer that has gone.
        (None, "203.0.113.9", None),
        ("", "203.0.113.9", None),
        ("/run/admin.sock", "203.0.113.9", "/run/admin.sock"),
    ],
)
def test_the_last_hop_that_no_trusted_proxy_stands_for(peer, header, found):
    assert client_ip(peer, header, TRUSTED) == found


def test_without_trusted_proxies_the_header_says_nothing():
    assert client_ip("10.0.0.1", "203.0.113.9", ()) == "10.0.0.1"


class TestSetting:
    @pytest.fixture(autouse=True)
    def _nowhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_it_is_a_list_with_commas_in_the_environment(self, monkeypatch):
        monkeypatch.setenv("TENTERHOOK_ADMIN__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7 ,fd00::/8")

        assert Settings().admin.trusted_proxies == TRUSTED
        shown = {each.name: each.value for each in all_settings(Settings())}
        assert shown["admin.trusted_proxies"] == "10.0.0.0/8, 192.0.2.7/32, fd00::/8"

    def test_and_a_list_in_the_file(self, tmp_path):
        (tmp_path / "tenterhook.toml").write_text(
            '[admin]\ntrusted_proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]\n'
        )

        assert Settings().admin.trusted_proxies == TRUSTED

    def test_by_default_nobody_is_trusted(self):
        assert Settings().admin.trusted_proxies == ()

    @pytest.mark.parametrize(
        ("given", "said"),
        [("10.0.0.0/8,proxy", "number 2 is no network"), ("10.0.0.1/8", "number 1"), ("::/0", "is every address")],
    )
    def test_what_is_no_network_stops_the_start(self, monkeypatch, given, said):
        monkeypatch.setenv("TENTERHOOK_ADMIN__TRUSTED_PROXIES", given)
        with pytest.raises(StartupError, match=rf"admin\.trusted_proxies: .*{said}"):
            load_settings()
