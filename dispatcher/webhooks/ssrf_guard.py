"""Check every address that a callback connects to, whatever name or notation leads there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from schemas.callback_url import CallbackPolicy, is_blocked

BLOCKED_MESSAGE = "is not allowed for callbacks"


class AddressBlocked(OSError):
    """The address or port is not allowed for callbacks; see webhooks.allow_private and webhooks.ports."""


def socket_factory(allowed: CallbackPolicy) -> Callable[[Any], socket.socket]:
    """Return what an aiohttp connector makes its sockets with: it is asked for every address that is connected to."""

    def guarded(address_info: Any) -> socket.socket:
        family, kind, protocol, _, address = address_info
        host, port = str(address[0]), int(address[1])
        if is_blocked(host, private=allowed.private):
            raise AddressBlocked(errno.EACCES, f"{host} {BLOCKED_MESSAGE}")
        if allowed.ports and port not in allowed.ports:
            raise AddressBlocked(errno.EACCES, f"port {port} {BLOCKED_MESSAGE}")
        return socket.socket(family, kind, protocol)

    return guarded
