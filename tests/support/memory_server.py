"""The application over parts in memory, behind its real server and socket: for bytes that no client would send."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import httpx
import uvicorn

from core.settings.models import Settings
from ingress.api.dialects import DIALECTS
from ingress.http.protocol import LimitedHttp
from ingress.main import Server
from tests.support.memory_ingress import HEADERS, Memory, ingress_in_memory
from tests.support.waiting import eventually_async

READ_S = 60


class Served:
    """A running server."""

    def __init__(self, memory: Memory, port: int, connections: Collection[Any]) -> None:
        self.memory = memory
        self.port = port
        self._connections = connections
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=READ_S)

    async def raw(self, *parts: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the server closes, as `connection: close` asks it."""
        return await self._exchange(parts, lambda _: False)

    async def in_segments(self, *parts: bytes) -> bytes:
        """Send the parts of a head so that each is read by itself, and return all that comes until the server closes.

        The body goes with the last part.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        read = 0
        try:
            for part in parts[:-1]:
                writer.write(part)
                read += len(part)
                await eventually_async(lambda: any(one._head_bytes == read for one in self._connections))  # noqa: B023
            writer.write(parts[-1])
            async with asyncio.timeout(READ_S):
                return await reader.read()
        finally:
            writer.close()

    async def first(self, *parts: bytes) -> bytes:
        """Do the same, but read one answer only: after a refused upload the server stays for a while to drain it."""
        return await self._exchange(parts, _is_whole)

    async def _exchange(self, parts: Sequence[bytes], enough: Callable[[bytes], bool]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        try:
            for part in parts:
                writer.write(part)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            async with asyncio.timeout(READ_S):
                while not enough(received) and (piece := await reader.read(65_536)):
                    received += piece
        except ConnectionError:
            pass
        finally:
            writer.close()
        return received


def _is_whole(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


@contextlib.asynccontextmanager
async def served_in_memory(settings: Settings, *, max_connections: int = 1_000) -> AsyncIterator[Served]:
    """Run the server."""
    async with ingress_in_memory(settings) as (memory, _):
        protocol = LimitedHttp.bounded(DIALECTS, max_connections=max_connections)
        server = Server(
            uvicorn.Config(
                memory.app,
                port=0,
                http=protocol,
                ws="none",
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                log_level=logging.ERROR,
                server_header=False,
                timeout_graceful_shutdown=1,
                interface="asgi3",
            )
        )
        serving = asyncio.create_task(server.serve(), name="server-under-test")
        await eventually_async(lambda: server.started or serving.done())
        port = server.servers[0].sockets[0].getsockname()[1]
        served = Served(memory, port, server.server_state.connections)
        try:
            yield served
        finally:
            await served.client.aclose()
            server.should_exit = True
            await serving
