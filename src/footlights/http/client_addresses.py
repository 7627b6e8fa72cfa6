"""Which addresses are one client's, where a bound is each client's."""

from __future__ import annotations

import ipaddress
from typing import Final

_NETWORK_BITS: Final = 64
_IPV4_AS_IPV6: Final = ipaddress.ip_network("64:ff9b::/96")
"""How translators show clients of IPv4 to servers of IPv6 (RFC 6052)."""


def client_of(address: str) -> str:
    """Return what is counted for an address: itself, or of IPv6 its network of 64 bits, all of which one client has.

    Link-local addresses are counted each: those of all machines of a network begin with the same 64 bits. What is no
    address stays as it is.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed in _IPV4_AS_IPV6:
        return str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
    if parsed.is_link_local or parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
