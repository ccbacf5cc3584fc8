"""Rules for webhook URLs and for the addresses that their hosts resolve to. Pure.

The URL is checked on submission, as far as possible; the addresses are checked at each connection, because a name may
resolve to another address by then.
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
"""Usual ports of webhook receivers; other ports of an external host are more likely other services."""
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]+(%[^\]]*)?\](:[0-9]+)?")
NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
PRIVATE_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa")
BLOCKED_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")

BLOCKED_V4 = tuple(
    IPv4Network(block)
    for block in ("0.0.0.0/8", "169.254.0.0/16", "192.0.0.192/32", "100.100.100.200/32", "224.0.0.0/4", "240.0.0.0/4")
)
"""Cloud metadata services and non-host addresses: rejected even if private addresses are allowed."""
BLOCKED_V6 = tuple(IPv6Network(block) for block in ("::/128", "fe80::/10", "fd00:ec2::254/128", "ff00::/8"))
PRIVATE_V4 = tuple(
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
PRIVATE_V6 = tuple(
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
EMBEDDING_BLOCKS = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""Blocks whose last 32 bits are an IPv4 address."""


class CallbackPolicy(NamedTuple):
    """What the operator allows; an empty `ports` allows any port."""

    private: bool = True
    ports: Collection[int] = ()


OPEN = CallbackPolicy()
"""The rules that apply to every deployment, and no others."""


def policy_of(*, private: bool, ports: Collection[int]) -> CallbackPolicy:
    """Return the policy of the settings: without private addresses, the usual ports unless others are set."""
    return CallbackPolicy(private, ports or (() if private else PUBLIC_PORTS))


def problem(url: str, allowed: CallbackPolicy = OPEN) -> str | None:
    """Return why a URL is rejected, as a sentence that continues "callback_url"; None if it is allowed."""
    return next(_problems(url, allowed), None)


def _problems(url: str, allowed: CallbackPolicy) -> Iterator[str]:
    """Yield the problems of a URL; only the first is valid, because later rules depend on the earlier ones."""
    if len(url) > MAX_URL:
        yield f"must be at most {MAX_URL} characters"
    if any(not 33 <= ord(character) <= 126 for character in url):
        yield "must be printable ASCII without spaces; encode other host names as xn-- and other characters as %XX"
    if any(character in url for character in '\\<>"{}|^`'):
        yield 'must not contain any of \\ < > " { } | ^ `'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        yield "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield "must be an http or https URL with a host"
    if "@" in parts.netloc:
        yield "must not contain credentials"
    if parts.netloc.endswith(":") or port == 0:
        yield "has an invalid port"
    port = port or (443 if parts.scheme == "https" else 80)
    if allowed.ports and port not in allowed.ports:
        yield f"has port {port}; allowed are {', '.join(map(str, sorted(allowed.ports)))} (webhooks.ports)"
    yield from _host_problems(parts, private=allowed.private)


def is_blocked(address: str, *, private: bool) -> bool:
    """Return whether connections to a resolved address are blocked."""
    try:
        found = ip_address(address)
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        if found in NAT64_LOCAL:
            return True
        inner = embedded_ipv4(found)
        if inner is None:
            return _in(found, BLOCKED_V6) or (not private and not _public_v6(found))
        found = inner
    return _in(found, BLOCKED_V4) or (not private and (_in(found, PRIVATE_V4) or not found.is_global))


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address embedded in an IPv6 address: mapped, compatible, NAT64, 6to4 or Teredo."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if int(address) > 1 and any(address in block for block in EMBEDDING_BLOCKS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _public_v6(address: IPv6Address) -> bool:
    return address.is_global and not address.is_reserved and not _in(address, PRIVATE_V6)


def _in(address: IPv4Address | IPv6Address, blocks: Collection[IPv4Network] | Collection[IPv6Network]) -> bool:
    return any(address in block for block in blocks)


def _host_problems(parts: SplitResult, *, private: bool) -> Iterator[str]:
    host = parts.hostname or ""
    name = host.removesuffix(".")
    labels = name.split(".")
    if "[" in parts.netloc or ":" in host:
        if not BRACKETS.fullmatch(parts.netloc):
            yield "has an invalid IPv6 address"
        yield from _v6_problems(host, private=private)
    elif "%" in host:
        yield "must not contain %XX in its host"
    elif NUMBER.fullmatch(labels[-1]):
        yield from _v4_problems(name, private=private)
    elif len(name) > MAX_NAME or not all(LABEL.fullmatch(label) for label in labels):
        yield "must have a valid host name"
    elif name in BLOCKED_NAMES:
        yield "is the address of a metadata service"
    elif not private and (len(labels) == 1 or labels[-1] in PRIVATE_NAMES):
        yield "has a host in a private network, which is not allowed (webhooks.allow_private)"


def _v4_problems(name: str, *, private: bool) -> Iterator[str]:
    """Check a name that ends in a number: resolvers read 127.1, 0x7f.1, 0177.0.0.1 and 2130706433 as addresses."""
    try:
        address = IPv4Address(name)
    except ValueError:
        yield "must write an IPv4 address as four decimal numbers without leading zeros"
    yield from _address_problems(str(address), private=private)


def _v6_problems(host: str, *, private: bool) -> Iterator[str]:
    try:
        address = IPv6Address(host)
    except ValueError:
        yield "has an invalid IPv6 address"
    if address.scope_id is not None:
        yield "must not have an IPv6 zone"
    if address in NAT64_LOCAL or embedded_ipv4(address) is not None:
        yield "has an IPv6 address that embeds an IPv4 address; use the IPv4 address"
    yield from _address_problems(str(address), private=private)


def _address_problems(address: str, *, private: bool) -> Iterator[str]:
    if is_blocked(address, private=True):
        yield f"has the address {address}, which is blocked"
    if is_blocked(address, private=private):
        yield f"has the private address {address}, which is not allowed (webhooks.allow_private)"
