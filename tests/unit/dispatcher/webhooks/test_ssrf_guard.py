"""Which addresses a webhook may connect to."""

from __future__ import annotations

import socket

import pytest

from dispatcher.webhooks.http_client import AddressBlocked, socket_factory
from schemas.callback_url import CallbackPolicy, is_blocked, policy_of

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "192.0.0.1",
    "192.88.99.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "2001:10::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "192.0.0.192",
    "100.100.100.200",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "64:ff9b:1::808:808",
    "not-an-address",
    "",
]
OUTSIDE = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "192.167.255.255",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", INSIDE + NEVER)
def test_inside_is_refused(address: str) -> None:
    assert is_blocked(address, private=False)


@pytest.mark.parametrize("address", INSIDE)
def test_inside_may_be_allowed(address: str) -> None:
    assert not is_blocked(address, private=True)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_services_and_what_is_no_host_are_never_allowed(address: str) -> None:
    assert is_blocked(address, private=True)


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside_is_allowed(address: str) -> None:
    assert not is_blocked(address, private=False)


def test_the_socket_is_refused_before_it_is_made() -> None:
    make = socket_factory(policy_of(private=False, ports=()))
    with pytest.raises(AddressBlocked, match=r"10\.0\.0\.1 is not allowed"):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)))
    with pytest.raises(AddressBlocked, match="port 25 is not allowed"):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 25)))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))).close()


def test_where_private_addresses_are_allowed_any_port_is_unless_some_are_named() -> None:
    make = socket_factory(policy_of(private=True, ports=()))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 18_081))).close()
    assert policy_of(private=True, ports=[80]) == CallbackPolicy(True, [80])
    with pytest.raises(AddressBlocked, match=r"169\.254\.169\.254 is not allowed"):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80)))
