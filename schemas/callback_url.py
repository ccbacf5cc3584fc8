"""Where a callback may go: pure rules for its URL, and for the addresses that its host stands for.

The URL is judged at submit, as far as it can be there; the addresses again whenever the sender connects, because a name
may lead somewhere else by then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

MAX_URL = 2048
MAX_NAME = 253
PUBLIC_PORTS = (80, 443, 8080, 8443)
"""What receivers listen on; any other port of a stranger's host is more likely something else."""
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]+(%[^\]]*)?\](:[0-9]+)?")
NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
INSIDE_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa")
NEVER_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")

NEVER_V4 = tuple(
    IPv4Network(block)
    for block in ("0.0.0.0/8", "169.254.0.0/16", "192.0.0.192/32", "100.100.100.200/32", "224.0.0.0/4", "240.0.0.0/4")
)
"""Metadata services of clouds, and what is no host: refused even where private addresses are allowed."""
NEVER_V6 = tuple(IPv6Network(block) for block in ("::/128", "fe80::/10", "fd00:ec2::254/128", "ff00::/8"))
INSIDE_V4 = tuple(
    IPv4Network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
)
INSIDE_V6 = tuple(
    IPv6Network(block)
    for block in (
        "::1/128",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fec0::/10",
    )
)
NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
CARRIERS = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""Blocks whose last 32 bits are an IPv4 address."""


class CallbackPolicy(NamedTuple):
    """What the operator allows; no ports mean any."""

    private: bool = True
    ports: Collection[int] = ()


OPEN = CallbackPolicy()
"""The rules that hold for every deployment, and nothing else."""


def policy_of(*, private: bool, ports: Collection[int]) -> CallbackPolicy:
    """Return what follows from the settings: strangers are reached at the usual ports unless others are given."""
    return CallbackPolicy(private, ports or (() if private else PUBLIC_PORTS))


def problem(url: str, allowed: CallbackPolicy = OPEN) -> str | None:
    """Say why a URL cannot be called back, in a sentence that continues "callback_url"; None when it may be tried."""
    return next(_problems(url, allowed), None)


def _problems(url: str, allowed: CallbackPolicy) -> Iterator[str]:
    """Yield what is wrong; only the first counts, for the later rules lean on the earlier."""
    if len(url) > MAX_URL:
        yield f"must be at most {MAX_URL} characters"
    if any(not 33 <= ord(character) <= 126 for character in url):
        yield "must be printable ASCII without blanks; write other names as xn-- and other characters as %XX"
    if any(character in url for character in '\\<>"{}|^`'):
        yield 'must not hold any of \\ < > " { } | ^ `'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        yield "is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield "must be an http or https URL with a host"
    if "@" in parts.netloc:
        yield "must not hold credentials"
    if parts.netloc.endswith(":") or port == 0:
        yield "names no port that can be called"
    port = port or (443 if parts.scheme == "https" else 80)
    if allowed.ports and port not in allowed.ports:
        yield f"names port {port}; allowed are {', '.join(map(str, sorted(allowed.ports)))} (webhooks.ports)"
    yield from _host_problems(parts, private=allowed.private)


def is_blocked(address: str, *, private: bool) -> bool:
    """Tell whether an address, as the resolver gave it, must not be connected to."""
    try:
        found = ip_address(address)
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        if found in NAT64_LOCAL:
            return True
        inner = embedded_ipv4(found)
        if inner is None:
            return _in(found, NEVER_V6) or (not private and not _public_v6(found))
        found = inner
    return _in(found, NEVER_V4) or (not private and (_in(found, INSIDE_V4) or not found.is_global))


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64, 6to4 or Teredo."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if int(address) > 1 and any(address in block for block in CARRIERS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _public_v6(address: IPv6Address) -> bool:
    return address.is_global and not address.is_reserved and not _in(address, INSIDE_V6)


def _in(address: IPv4Address | IPv6Address, blocks: Collection[IPv4Network] | Collection[IPv6Network]) -> bool:
    return any(address in block for block in blocks)


def _host_problems(parts: SplitResult, *, private: bool) -> Iterator[str]:
    host = parts.hostname or ""
    name = host.removesuffix(".")
    labels = name.split(".")
    if "[" in parts.netloc or ":" in host:
        if not BRACKETS.fullmatch(parts.netloc):
            yield "holds no IPv6 address"
        yield from _v6_problems(host, private=private)
    elif "%" in host:
        yield "must not hold %XX in its host"
    elif NUMBER.fullmatch(labels[-1]):
        yield from _v4_problems(name, private=private)
    elif len(name) > MAX_NAME or not all(LABEL.fullmatch(label) for label in labels):
        yield "must name a host"
    elif name in NEVER_NAMES:
        yield "leads to a metadata service"
    elif not private and (len(labels) == 1 or labels[-1] in INSIDE_NAMES):
        yield "names a host of a private network, which is not allowed here (webhooks.allow_private)"


def _v4_problems(name: str, *, private: bool) -> Iterator[str]:
    """Judge a name that ends in a number: resolvers read 127.1, 0x7f.1, 0177.0.0.1 and 2130706433 as addresses."""
    try:
        address = IPv4Address(name)
    except ValueError:
        yield "must write an IPv4 address as four decimal numbers without leading zeros"
    yield from _address_problems(str(address), private=private)


def _v6_problems(host: str, *, private: bool) -> Iterator[str]:
    try:
        address = IPv6Address(host)
    except ValueError:
        yield "holds no IPv6 address"
    if address.scope_id is not None:
        yield "must not name a network interface"
    if address in NAT64_LOCAL or embedded_ipv4(address) is not None:
        yield "holds an IPv6 address that stands for an IPv4 one; write that"
    yield from _address_problems(str(address), private=private)


def _address_problems(address: str, *, private: bool) -> Iterator[str]:
    if is_blocked(address, private=True):
        yield f"leads to {address}, which is no receiver"
    if is_blocked(address, private=private):
        yield f"leads to the private address {address}, which is not allowed here (webhooks.allow_private)"
