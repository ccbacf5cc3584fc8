"""Describe why a server could not be reached; the same text for aiohttp, httpx and plain sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

LONGEST = 200


def why(error: BaseException) -> str:
    """Return what the server does, such as "refuses connections", from the root cause."""
    causes = list(_causes(error))
    for cause in reversed(causes):
        match cause:
            case ConnectionRefusedError():
                return "refuses connections"
            case socket.gaierror():
                return "has a name that cannot be resolved"
            case ssl.SSLError():
                return f"fails at TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}"[:LONGEST]
            case ConnectionResetError() | BrokenPipeError():
                return "breaks connections off"
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes):
        return "does not answer in time"
    return f"cannot be called: {str(error) or type(error).__name__}"[:LONGEST]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; clients store the system error in several attributes."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "os_error", None)]
        left += [cause for cause in inner if isinstance(cause, BaseException)]
        left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
