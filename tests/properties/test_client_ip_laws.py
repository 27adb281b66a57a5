"""Laws of the address in the audit log: a client's own is found, whatever it claims."""

from ipaddress import ip_address, ip_network

from hypothesis import assume, given
from hypothesis import strategies as st

from services.admin.client_ip import client_ip

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("fd00::/8"))

addresses = st.ip_addresses().map(str)
#: What somebody writes who knows how it is read, or who does not.
claims = st.text(max_size=60) | st.lists(addresses | st.just("10.0.0.3"), max_size=3).map(", ".join)


@given(addresses, claims, st.lists(st.sampled_from(["10.0.0.2", "192.0.2.7", "fd00::5"])))
def test_whatever_a_client_writes_its_own_address_is_found(client, claimed, proxies):
    """Each proxy appends whom it heard from; the last of them is the peer."""
    own = client_ip(client, None, ())
    assume(not any(ip_address(own) in network for network in TRUSTED))

    assert client_ip("10.0.0.1", ", ".join([claimed, client, *proxies]), TRUSTED) == own


@given(st.one_of(st.none(), st.text(max_size=20), addresses), claims)
def test_no_header_makes_it_raise(peer, header):
    client_ip(peer, header, TRUSTED)
