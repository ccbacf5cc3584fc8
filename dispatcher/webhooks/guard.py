"""Which addresses a callback may reach: none inside our own networks, whatever name or notation leads there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

NAT64 = IPv6Network("64:ff9b::/96")
NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
COMPATIBLE = IPv6Network("::/96")
MARK = "is not allowed for callbacks"


class Blocked(OSError):
    """The address is private; set webhooks.allow_private to allow it."""


def forbidden(text: str) -> bool:
    """Tell whether an address, as the resolver or the URL gave it, is anything but a public unicast one."""
    try:
        address = ip_address(text)
    except ValueError:
        return True
    if isinstance(address, IPv6Address):
        if address in NAT64_LOCAL:
            return True
        inner = _inside(address)
        if inner is None:
            return not address.is_global or address.is_multicast or address.is_reserved or address.is_site_local
        address = inner
    return not address.is_global or address.is_multicast or address.is_reserved


def guarded_socket(address_info: Any) -> socket.socket:
    """Make the socket for a chosen address, or refuse: aiohttp asks here for every address that it connects to."""
    family, kind, protocol, _, address = address_info
    if forbidden(str(address[0])):
        raise Blocked(errno.EACCES, f"{address[0]} {MARK}")
    return socket.socket(family, kind, protocol)


def socket_factory(*, allow_private: bool) -> Callable[[Any], socket.socket] | None:
    """Return what an aiohttp connector makes its sockets with; None for its own way."""
    return None if allow_private else guarded_socket


def _inside(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64 or address in COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
