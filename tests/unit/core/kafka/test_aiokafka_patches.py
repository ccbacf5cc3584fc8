"""A request on a connection that broke a moment ago: on uvloop it fails as on asyncio's own loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from core.kafka import aiokafka_patches

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    yield
    AIOKafkaConnection.send = aiokafka_patches._send


async def ask_after_a_break() -> None:
    """Send on a connection whose other side is gone, before anybody has read of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        _, writer = await asyncio.open_connection(host, port)
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        connection = AIOKafkaConnection(host, port)
        connection._writer = writer
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        try:
            await connection.send(ApiVersionRequest())
        finally:
            writer.close()
            connection._writer = None


def test_uvloop_speaks_of_a_break_in_its_own_way(as_it_was: None) -> None:
    """As long as this holds the mend is needed."""
    AIOKafkaConnection.send = aiokafka_patches._send
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(RuntimeError):
        runner.run(ask_after_a_break())


def test_a_break_is_an_error_of_kafka(as_it_was: None) -> None:
    aiokafka_patches.patch_connections()
    aiokafka_patches.patch_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(KafkaConnectionError):
        runner.run(ask_after_a_break())
