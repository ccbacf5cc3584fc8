"""Send a Kafka metadata request without a client library, to count the live brokers."""

from __future__ import annotations

import socket
import struct

METADATA, VERSION = 3, 4  # the oldest version that can forbid topic creation; Kafka 4 answers it
CLIENT_ID = b"headrace-probe"
ANSWER_LIMIT_BYTES = 1_000_000


def brokers_alive(host: str, port: int, *, timeout_s: float = 2) -> int:
    """Return the number of live brokers of the cluster; 0 if it does not answer.

    A broker accepts connections some time before it may lead partitions; only then it is counted here.
    """
    header = struct.pack(f">hhih{len(CLIENT_ID)}s", METADATA, VERSION, 1, len(CLIENT_ID), CLIENT_ID)
    request = header + struct.pack(">i?", 0, False)  # no topics, create nothing
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(request)) + request)
            size = struct.unpack(">i", _read(connection, 4))[0]
            if not 12 <= size <= ANSWER_LIMIT_BYTES:
                return 0
            _correlation, _throttle_ms, brokers = struct.unpack(">iii", _read(connection, 12))
    except OSError:
        return 0
    return int(brokers)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        data += part
    return data
