"""Which addresses a server may call on somebody's word: those of the public internet."""

from __future__ import annotations

import ipaddress
import socket

from kidrails_guard.errors import UsageError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class UnknownHost(UsageError):
    """A host's name leads nowhere."""


def public_addresses(host: str, port: int, *, allow: frozenset[str] = frozenset()) -> list[str]:
    """Return a host's addresses, if all may be called from a server.

    Args:
        host: name or address.
        port: for the look-up.
        allow: hosts that the operator names although they are private.

    Raises:
        UnknownHost: there is no such host, or nobody can say at the moment.
        UsageError: an address is private, loopback, link-local or otherwise not public
            (server-side request forgery, CWE-918).
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnknownHost(f"webhook: the host {host!r} is not known") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host not in allow:
        for address in addresses:
            if not is_public(address):
                raise UsageError(
                    f"webhook: {host!r} leads to {address}, which is not a public address; if that "
                    f"is meant, start with --alert-host {host}"
                )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in.

    Addresses of the IPv6 transition mechanisms carry an IPv4 address that a router unwraps, so that
    one decides.

    Source: RFC 6052 (64:ff9b::/96), RFC 3056 (2002::/16), RFC 4291 2.5.5.1 (::a.b.c.d).
    """
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64 or found in _COMPATIBLE:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local or found in _LOCAL_NAT64:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved
