"""The reason why a server was not reached, whoever called it: real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
import httpx
import pytest

from core.reachability import LONGEST, why
from tests.support.ports import free_port


async def by_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as client, client.get(url):
        pass


async def by_httpx(url: str) -> None:
    async with httpx.AsyncClient(timeout=0.5, trust_env=False) as client:
        await client.get(url)


async def by_asyncio(url: str) -> None:
    parts = httpx.URL(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    async with asyncio.timeout(0.5):
        reader, writer = await asyncio.open_connection(parts.host, parts.port, ssl=secure)
        try:
            await reader.readexactly(1)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError from None
        finally:
            writer.close()


async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.6)
    writer.close()


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("call", [by_aiohttp, by_httpx, by_asyncio])
async def test_the_reason_is_reported_to_every_caller(call: Callable[[str], Awaitable[None]]) -> None:
    async def told(url: str) -> str:
        with pytest.raises((OSError, aiohttp.ClientError, httpx.HTTPError)) as raised:
            await call(url)
        return why(raised.value)

    assert await told(f"http://127.0.0.1:{free_port()}/") == "refuses connections"
    assert await told("http://no-such-host.invalid:80/") == "has a name that cannot be resolved"
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        assert await told(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") == "does not answer in time"
    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        assert (await told(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")).startswith("fails at TLS: ")


def test_any_other_reason_is_passed_on_truncated() -> None:
    assert why(ValueError("odd")) == "cannot be called: odd"
    assert why(ConnectionResetError()) == "breaks connections off"
    assert why(OSError()) == "cannot be called: OSError"
    assert len(why(ValueError("x" * 500))) == LONGEST
    circle = ValueError("a")
    circle.__context__ = KeyError("b")
    circle.__context__.__context__ = circle
    assert why(circle) == "cannot be called: a"
