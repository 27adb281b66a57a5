"""
Where a request to the admin API came from, for the audit log.

Pure. `X-Forwarded-For` is a claim of whoever sends it; it counts as far as proxies that the settings name have
vouched for it (`admin.trusted_proxies`), read from its end, where the nearest one has written.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

#: With a port, as some proxies write it: `192.0.2.7:4711`, `[2001:db8::7]:4711`, `[2001:db8::7]`.
_WITH_PORT: Final = re.compile(r"\[([^\[\]]+)\](?::\d+)?|([^:\[\]]+):\d+")


def client_ip(peer: str | None, x_forwarded_for: str | None, trusted: Sequence[Network]) -> str | None:
    """
    The address of the last hop that no trusted proxy stands for; None where not even the peer's is known.

    Where all hops are trusted proxies, the first of them. What is no address ends the search, and the hop before it
    counts: what stands further left then has nobody to vouch for it.

    Args:
        peer: the address that the connection came from.
        x_forwarded_for: the header; several of them joined with commas, in their order.
    """
    if not peer:
        return None
    hop = _address(peer)
    if hop is None:
        return peer
    for claimed in reversed((x_forwarded_for or "").split(",")):
        if not _is_in(hop, trusted):
            break
        before = _address(claimed)
        if before is None:
            break
        hop = before
    return str(hop)


def is_trusted(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Whether the connection came from a proxy whose word counts."""
    address = _address(peer or "")
    return address is not None and _is_in(address, trusted)


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, without port and zone; an IPv4 one in IPv6 form is the IPv4 one. None where it is none."""
    text = text.strip().strip('"')
    found = _WITH_PORT.fullmatch(text)
    if found:
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
