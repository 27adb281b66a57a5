"""
Where requests may go: the rules for addresses and URLs.

Pure: text in, a reason or None out. The senders ask for every address they are about to dial, whatever the
URL said: a name can resolve to anything, and `ipaddress.is_global` alone calls NAT64 and 6to4 forms of
127.0.0.1 global.
"""

import ipaddress
import re
from ipaddress import IPV4LENGTH, IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Final
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network

#: Refused always, also where private addresses are allowed: what answers there hands out credentials.
#: 169.254.0.0/16 and fe80::/10 as a whole are refused below. Sources: the documentation of each cloud.
_METADATA: Final = frozenset(
    {
        ipaddress.ip_address("100.100.100.200"),  # Alibaba Cloud, inside 100.64.0.0/10
        ipaddress.ip_address("168.63.129.16"),  # Azure's wire server, otherwise a public address
        ipaddress.ip_address("192.0.0.192"),  # Oracle Cloud, inside 192.0.0.0/24
        ipaddress.ip_address("fd00:ec2::254"),  # AWS
        ipaddress.ip_address("fd20:ce::254"),  # Google Cloud
    }
)

#: Loopback and private networks: what `allow_private` opens.
_PRIVATE_4: Final = (
    (IPv4Network("10.0.0.0/8"), "a private address"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("172.16.0.0/12"), "a private address"),
    (IPv4Network("192.168.0.0/16"), "a private address"),
)
#: Source: IANA IPv4 Special-Purpose Address Registry, and RFC 5771 for multicast.
_NEVER_4: Final = (
    (IPv4Network("0.0.0.0/8"), "an unspecified address"),
    (IPv4Network("100.64.0.0/10"), "an address shared behind a carrier's NAT"),
    (IPv4Network("169.254.0.0/16"), "a link-local address, where clouds keep their metadata"),
    (IPv4Network("192.0.0.0/24"), "an address reserved for protocols"),
    (IPv4Network("192.0.2.0/24"), "an address for documentation"),
    (IPv4Network("192.88.99.0/24"), "an address reserved for protocols"),
    (IPv4Network("198.18.0.0/15"), "an address for benchmarks"),
    (IPv4Network("198.51.100.0/24"), "an address for documentation"),
    (IPv4Network("203.0.113.0/24"), "an address for documentation"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("255.255.255.255/32"), "the broadcast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved address"),
)

_PRIVATE_6: Final = (
    (IPv6Network("::1/128"), "a loopback address"),
    (IPv6Network("fc00::/7"), "a private address"),
)
#: First match counts. Source: IANA IPv6 Special-Purpose Address Registry.
_NEVER_6: Final = (
    (IPv6Network("::/128"), "the unspecified address"),
    (IPv6Network("::/96"), "an IPv4 address in a withdrawn IPv6 form"),
    (IPv6Network("64:ff9b:1::/48"), "a local translation of an IPv4 address"),
    (IPv6Network("fe80::/10"), "a link-local address"),
    (IPv6Network("fec0::/10"), "a site-local address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
    (IPv6Network("2001::/32"), "a Teredo address"),
    (IPv6Network("2001::/23"), "an address reserved for protocols"),
    (IPv6Network("2001:db8::/32"), "an address for documentation"),
    (IPv6Network("3fff::/20"), "an address for documentation"),
)
#: The only part of IPv6 that is handed out to networks; all that is outside, and not named above, is reserved.
_GLOBAL_6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")

#: Longer ones are refused by common servers (nginx and Apache take a request line of 8 KiB).
MAX_URL_CHARS: Final = 4_096
_MAX_HOST_CHARS: Final = 253
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_IN_BRACKETS: Final = re.compile(r"\[[^\]]+\](:[0-9]+)?")
#: A last label that a URL parser takes for a number: then the whole host is an IPv4 address.
#: Source: WHATWG URL, "ends in a number checker".
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_NOT_IN_A_URL: Final = re.compile(r"[^\x21-\x7e]|\\")


def address_refusal(ip: str, allow_private: bool) -> str | None:
    """
    Why this address may not be dialled, as a noun for people ("a loopback address"); None where it may.

    Args:
        ip: as dialled: what a look-up gave or what stood in the URL, in canonical form.
        allow_private: lets loopback and private networks through, and nothing else.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return "no IP address"
    if address in _METADATA:
        return "an address of a cloud's metadata service"
    if isinstance(address, IPv4Address):
        return _refusal_4(address, allow_private)
    return _refusal_6(address, allow_private)


def open_blocks() -> list[tuple[Network, list[Network]]]:
    """
    What may be dialled where private addresses may not, as networks with those in them that may not: for a firewall.

    The same rules as `address_refusal` with another face, held to it by a test.
    """
    never_4 = [network for network, _ in (*_NEVER_4, *_PRIVATE_4)]
    never_6 = [network for network, _ in (*_NEVER_6, *_PRIVATE_6)]
    for single in _METADATA:
        if isinstance(single, IPv4Address):
            never_4.append(IPv4Network(single))
        else:
            never_6.append(IPv6Network(single))
    closed_4 = list(collapse_addresses(never_4))
    closed_6 = [network for network in collapse_addresses(never_6) if network.subnet_of(_GLOBAL_6)]
    in_six_to_four = [_translated(network, _SIX_TO_FOUR) for network in closed_4]
    in_nat64 = [_translated(network, _NAT64) for network in closed_4]
    return [
        (IPv4Network("0.0.0.0/0"), [*closed_4]),
        (_GLOBAL_6, sorted([*closed_6, *in_six_to_four])),
        (_NAT64, [*in_nat64]),
    ]


def _translated(network: IPv4Network, translator: IPv6Network) -> IPv6Network:
    """The addresses that a translator turns into those of the network."""
    length = translator.prefixlen + network.prefixlen
    shift = 128 - translator.prefixlen - IPV4LENGTH
    return IPv6Network((int(translator.network_address) | int(network.network_address) << shift, length))


def _refusal_4(address: IPv4Address, allow_private: bool) -> str | None:
    for network, reason in _NEVER_4:
        if address in network:
            return reason
    for network, reason in _PRIVATE_4:
        if address in network:
            return None if allow_private else reason
    return None


def _refusal_6(address: IPv6Address, allow_private: bool) -> str | None:
    if address.ipv4_mapped is not None:
        # The kernel dials the IPv4 address itself, so that one's rules hold unchanged.
        return address_refusal(str(address.ipv4_mapped), allow_private)
    for network, reason in _PRIVATE_6:
        if address in network:
            return None if allow_private else reason
    embedded = _embedded(address)
    if embedded is not None:
        # A gateway dials it: what is private there is not our network, so allow_private says nothing about it.
        reason_4 = address_refusal(str(embedded), allow_private=False)
        return reason_4 and f"a translated form of {embedded}, {reason_4}"
    for network, reason in _NEVER_6:
        if address in network:
            return reason
    return None if address in _GLOBAL_6 else "a reserved address"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator behind this one would dial."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return None


def url_refusal(url: str, allow_http: bool) -> str | None:
    """
    Why no request may go to this URL, for people and without the URL itself; None where one may.

    Says nothing about where its host leads: `address_refusal` does, for each address that is dialled.

    Args:
        url: as rendered, in ASCII.
        allow_http: whether the app may use plain http.
    """
    if len(url) > MAX_URL_CHARS:
        return f"the URL has {len(url)} characters: {MAX_URL_CHARS} at most"
    if _NOT_IN_A_URL.search(url):
        return "the URL holds a character that must be percent-encoded in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL cannot be read: check its host and port"
    return (
        _scheme_refusal(parts.scheme, allow_http)
        or _authority_refusal(parts.netloc, port)
        or _host_refusal(parts.hostname or "", parts.netloc)
    )


def _scheme_refusal(scheme: str, allow_http: bool) -> str | None:
    if scheme == "http":
        return None if allow_http else "plain http is not allowed for this app: use https"
    return None if scheme == "https" else "the URL must begin with https://"


def _authority_refusal(netloc: str, port: int | None) -> str | None:
    if "@" in netloc:
        return "the URL holds a user name or password: put them into an Authorization header"
    return "the URL's port must be 1 to 65535" if port == 0 or netloc.endswith(":") else None


def _host_refusal(host: str, netloc: str) -> str | None:
    if not host:
        return "the URL names no host"
    if netloc.startswith("["):
        is_whole = _IN_BRACKETS.fullmatch(netloc) and _is_address(host, IPv6Address)
        return None if is_whole else "the URL's host in brackets is no IPv6 address"
    if len(host) > _MAX_HOST_CHARS or not _HOST_NAME.fullmatch(host):
        return "the URL's host is no valid name"
    if _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]) and not _is_address(host, IPv4Address):
        return "the URL's host is an unusual form of an IPv4 address: write it as four decimal numbers"
    return None


def _is_address(host: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    """Whether this is an address of that kind, in the usual form and without a zone."""
    try:
        kind(host)
    except ValueError:
        return False
    return "%" not in host
