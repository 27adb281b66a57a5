"""Where requests may go."""

import ipaddress

import pytest

from services.dispatcher.guard import MAX_URL_CHARS, address_refusal, url_refusal

PRIVATE = [
    "127.0.0.1", "127.255.255.255", "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0",
    "192.168.255.255", "::1", "fc00::", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "0:0:0:0:0:ffff:7f00:1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "0.1.2.3", "100.64.0.0", "100.127.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255",
    "192.0.0.0", "192.0.0.8", "192.0.0.192", "192.0.0.255", "192.0.2.1", "192.88.99.1", "198.18.0.0", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255",
    "100.100.100.200", "168.63.129.16",
    "::", "::127.0.0.1", "::8.8.8.8", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::ffff:100.64.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::a83f:8110",
    "64:ff9b:1::1", "64:ff9b:1:ffff::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::",
    "2001::1", "2001:0:53aa:64c:0:fbff:ffff:fffe", "2001:1ff::1", "2001:20::1", "2001:db8::1", "3fff::1", "3fff:fff::1",
    "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "100::1", "5f00::1",
    "fd00:ec2::254", "fd20:ce::254", "4000::1", "1::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:200::1", "2001:4860::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "3ffe::1",
]  # fmt: skip


class TestAddresses:
    @pytest.mark.parametrize("ip", PRIVATE)
    def test_loopback_and_private_networks_are_refused_unless_allowed(self, ip):
        assert address_refusal(ip, allow_private=False)
        assert address_refusal(ip, allow_private=True) is None

    @pytest.mark.parametrize("ip", NEVER)
    @pytest.mark.parametrize("allow_private", [True, False])
    def test_everything_else_that_is_special_is_refused_always(self, ip, allow_private):
        assert address_refusal(ip, allow_private)

    @pytest.mark.parametrize("ip", PUBLIC)
    @pytest.mark.parametrize("allow_private", [True, False])
    def test_public_addresses_are_allowed(self, ip, allow_private):
        assert address_refusal(ip, allow_private) is None

    @pytest.mark.parametrize(
        "text", ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4.5", "::g", "[::1]"]
    )
    def test_what_is_no_address_is_refused(self, text):
        assert address_refusal(text, allow_private=True) == "no IP address"

    def test_the_reason_names_what_is_behind_a_translated_form(self):
        assert address_refusal("64:ff9b::7f00:1", allow_private=True) == (
            "a translated form of 127.0.0.1, a loopback address"
        )

    def test_pythons_own_word_is_not_enough(self):
        """Why there are tables here: Python calls these global."""
        wrong = [ip for ip in NEVER if ipaddress.ip_address(ip.partition("%")[0]).is_global]
        assert {"64:ff9b::7f00:1", "2002:7f00:1::", "168.63.129.16", "224.0.0.1"} <= set(wrong)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://crm.example",
            "https://crm.example/",
            "HTTPS://CRM.EXAMPLE:8443/a?b=c&d=%20|{}",
            "https://a_b.example./x",
            "https://xn--mller-kva.example/",
            "https://localhost/",
            "https://203.0.113.1/",
            "https://[2001:db8::1]:443/",
            "https://1.2.3.example/",
            "https://crm.example/@x:y",
        ],
    )
    def test_https_urls_are_allowed(self, url):
        assert url_refusal(url, allow_http=False) is None

    def test_http_is_allowed_where_the_app_says_so(self):
        assert url_refusal("http://crm.example/", allow_http=True) is None
        assert "https" in url_refusal("http://crm.example/", allow_http=False)

    @pytest.mark.parametrize(
        "url",
        [
            "", "crm.example", "//crm.example/", "ftp://crm.example/", "file:///etc/passwd", "javascript:alert(1)",
            "https://", "https:///x", "https:x", "https:/x", "https://:443/", "https://?x",
            "https://u@crm.example/", "https://u:p@crm.example/", "https://@crm.example/", "https://crm.example@10.0.0.1/",
            "https://crm.example:0/", "https://crm.example:65536/", "https://crm.example:-1/", "https://crm.example:/",
            "https://crm.example:x/", "https://crm.example:8443:1/",
            "https://crm.example/a b", "https://crm.example/\t", "https://crm.example/\r\nX: y", "https://crm.example/\x00",
            "https://crm.example\\@evil.example/", "https://crm\\.example/", "https://müller.example/",
            "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
            "https://127.0.0.1./", "https://1.2.3.4.5/", "https://crm.1/", "https://crm.0x/", "https://256.0.0.1/",
            "https://[::1", "https://::1/", "https://[::1]x/", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/",
            "https://[127.0.0.1]/", "https://[v1.x]/", "https://[]/",
            "https://-crm.example/", "https://crm..example/", "https://.crm.example/", "https://crm-.example/",
            f"https://{'a' * 64}.example/", f"https://{'a.' * 127}example/", "https://crm%2Eexample/",
            "https://crm.example/" + "a" * MAX_URL_CHARS,
        ],
    )  # fmt: skip
    def test_everything_else_is_refused(self, url):
        assert url_refusal(url, allow_http=True)

    def test_the_reason_shows_no_part_of_the_url(self):
        assert "k3y" not in url_refusal("ftp://k3y.example/k3y?k3y", allow_http=True)
