"""One upstream model server: a long-lived aiohttp client, its responses, and the classification of its failures.

aiohttp is used directly: httpx over it, with the same transport, cost 0.28 ms CPU more per call, as much as everything
else that a dispatcher does for a task (docs/contributing/decisions/0017).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from core.reachability import why
from core.settings.models import Settings
from dispatcher.inference.outcome import Failure, Report

KEEP_ALIVE_S = 4.0
"""Below the five seconds after which common servers close an idle connection: a call must not use a closed one."""
PROBE_TIMEOUT_S = 2.0
READ_BYTES = 262_144


class UpstreamResponse:
    """An aiohttp response whose body is still to be read."""

    __slots__ = ("_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """Return a header's value; bytes that are not UTF-8 are decoded as Latin-1, to fit into a record."""
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

        aiohttp's reader raises as soon as it knows of a broken connection, even when bytes are in its buffer: the last
        frames of an upstream that sends them and crashes would be lost. So they are taken out first.
        """
        content = self._response.content
        try:
            async for data in content.iter_any():
                yield data
        except aiohttp.ClientError:
            rest = content._read_nowait(-1)  # noqa: SLF001 - its public counterpart raises the error of the break first
            if rest:
                yield rest
            raise

    def close(self) -> None:
        """Release the connection, or close it when the body was not read to its end, which cancels the call."""
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()


class CallError(Exception):
    """A call has no response."""

    def __init__(self, failure: Failure, detail: str = "", *, report: Report | None = None) -> None:
        """`report` is the error that the upstream sent instead of a response."""
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
        self.report = report


class Upstream:
    """A base URL with its client; the pool manages `load`, `up` and `backoff_until`."""

    def __init__(self, settings: Settings, base: str) -> None:
        self.base = base
        self.load = 0
        self.up = False
        self.failure = ""
        self.backoff_until = 0.0
        self._headers = {"accept-encoding": "identity", "user-agent": "headrace"}
        if (key := settings.upstream.api_key) is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.dispatcher.connect_timeout_s)
        self._opened: aiohttp.ClientSession | None = None
        self._url = lru_cache(maxsize=256)(self._make_url)

    @asynccontextmanager
    async def post(
        self, endpoint: str, body: bytes | AsyncIterable[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[UpstreamResponse]:
        """Send a request and yield the response, its body still to be read; failures inside are raised as CallError.

        A streamed body is sent while it is read, with a content-length among the headers. Leaving the block with the
        body unread closes the connection: that is how a call is cancelled.
        """
        try:
            url = self._url(endpoint)
            answer = UpstreamResponse(
                await self._client().post(url, data=body or None, headers=headers, allow_redirects=False)
            )
            try:
                yield answer
            finally:
                answer.close()
        except (aiohttp.ClientError, OSError) as error:
            raise _named(error) from error

    async def is_reachable(self) -> bool | None:
        """Request the models: True for any HTTP response, False without a connection, None when it timed out.

        The reason is then in `failure`.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PROBE_TIMEOUT_S, sock_read=PROBE_TIMEOUT_S)
        try:
            async with self._client().get(f"{self.base}/models", timeout=timeout, allow_redirects=False) as response:
                return response.status > 0
        except (aiohttp.ClientError, OSError) as error:
            self.failure = why(error)
            return None if isinstance(error, aiohttp.SocketTimeoutError) else False

    async def close(self) -> None:
        """Close all connections."""
        if self._opened is not None:
            await self._opened.close()

    def _client(self) -> aiohttp.ClientSession:
        """Open the client at the first call: it belongs to the event loop that runs then."""
        if self._opened is None:
            # no limit of its own: the slots are the limit
            connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(), keepalive_timeout=KEEP_ALIVE_S)
            self._opened = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=self._timeout,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BYTES,
            )
        return self._opened

    def _make_url(self, endpoint: str) -> str:
        path = endpoint.removeprefix("/v1") if endpoint.startswith("/v1/") else endpoint
        return self.base + path


def _named(error: aiohttp.ClientError | OSError) -> CallError:
    """Classify a failure."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        failure = Failure.UNREACHABLE
    elif isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL) or isinstance(
        error.__cause__, ContentEncodingError
    ):
        failure = Failure.MALFORMED
    else:
        failure = Failure.CUT
    # The text of a ClientResponseError ends with a status that was not sent, and with the upstream's address.
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return CallError(failure, text or type(error).__name__)
