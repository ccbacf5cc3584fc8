"""Choose free ports for the processes of a stack, and reuse earlier choices."""

from __future__ import annotations

import random
import socket

# Below the range that kernels hand out to outgoing connections (32768 and up on Linux): a client that keeps dialling a
# broker which is down can be given the broker's own port as its source, connect to itself and so keep the broker out.
FIRST_PORT, LAST_PORT = 20_000, 32_000
LOOPBACK = "127.0.0.1"
# Not the module's generator: a seeded one, as in tests, would return the same ports in every process.
_random = random.SystemRandom()


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on the port now."""
    try:
        check_listen(host, port)
    except OSError:
        return False
    return True


def check_listen(host: str, port: int) -> None:
    """Listen on the address for a moment; raises the OSError that a server would get."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of a predecessor that are still closing must not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def free_port(host: str = LOOPBACK) -> int:
    """Return a free port, chosen at random so that two stacks rarely choose the same."""
    while True:
        port = _random.randrange(FIRST_PORT, LAST_PORT)
        if is_free(port, host):
            return port


def previous_or_free_port(remembered: int | None, host: str = LOOPBACK) -> int:
    """Return the previous port if it is free, otherwise another."""
    return remembered if remembered and is_free(remembered, host) else free_port(host)
