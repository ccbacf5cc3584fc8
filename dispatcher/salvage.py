"""A transport that hands over what had arrived before a connection broke.

aiohttp's reader raises as soon as it knows of the break, also when bytes wait in its buffer: the last frames of an
upstream that sends them and dies at once would be lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport


class SalvagingTransport(AiohttpTransport):
    """httpx-aiohttp's transport with no byte lost at a break."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, its body still to be read."""
        response = await super().handle_async_request(request)
        answer = getattr(response.stream, "_aiohttp_response", None)
        if isinstance(answer, aiohttp.ClientResponse) and isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Salvaged(response.stream, answer.content)
        return response


class _Salvaged(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, reader: aiohttp.StreamReader) -> None:
        self._stream = stream
        self._reader = reader

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._stream:
                yield data
        except httpx.HTTPError:
            rest = self._reader._read_nowait(-1)  # noqa: SLF001 - its public twin raises the error of the break first
            if rest:
                yield rest
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()
