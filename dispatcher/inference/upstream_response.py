"""An upstream's answer: its head, and its body piece by piece, with no byte lost when the connection breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp


class UpstreamResponse:
    """A response of aiohttp whose body is still to be read."""

    __slots__ = ("_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """Return a header's value; bytes that are no UTF-8 are read as Latin-1, so that a record can hold them."""
        value = self._response.headers.get(name)
        if value is None or value.isascii():
            return value
        raw = value.encode(errors="surrogateescape")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    async def iter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives; raises aiohttp.ClientError.

        aiohttp's reader raises as soon as it knows of a break, also when bytes wait in its buffer: the last frames of
        an upstream that sends them and dies at once would be lost. So they are taken out first.
        """
        content = self._response.content
        try:
            async for data in content.iter_any():
                yield data
        except aiohttp.ClientError:
            rest = content._read_nowait(-1)  # noqa: SLF001 - its public twin raises the error of the break first
            if rest:
                yield rest
            raise

    def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end: so a call is cancelled."""
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()
